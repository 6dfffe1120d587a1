# From the PVH entry point to Rust.
#
# PVH (Xen, docs/misc/pvh.pandoc): 32-bit protected mode, flat segments, paging
# off, interrupts off, %ebx = physical address of hvm_start_info. No stack.
#
# Invariant: SSE, and AVX where there is any, is on before the first Rust code
# runs, because that code was compiled with it.

    .section .note.Xen, "a", @note
    .balign 4
    .long 4                         # size of the name
    .long 4                         # size of the descriptor
    .long 18                        # XEN_ELFNOTE_PHYS32_ENTRY
    .asciz "Xen"
    .long pvh_entry

    .section .text.entry, "ax"
    .code32
    .global pvh_entry
pvh_entry:
    cli
    cld
    rdtsc                           # time of entry, kept in esi:ebp
    mov ebp, eax
    mov esi, edx

    mov edi, offset __bss_start
    mov ecx, offset __bss_end
    sub ecx, edi
    shr ecx, 2
    xor eax, eax
    rep stosd

    # The first 4 GiB as they are, by 2 MiB pages; `paging` replaces this map.
    mov edi, offset boot_directories
    mov eax, 0x83                   # present, writable, 2 MiB
    mov ecx, 2048
2:  mov [edi], eax
    add edi, 8
    add eax, 0x200000
    dec ecx
    jnz 2b
    mov edi, offset boot_pointers
    mov eax, offset boot_directories + 3
    mov ecx, 4
3:  mov [edi], eax
    add edi, 8
    add eax, 0x1000
    dec ecx
    jnz 3b
    mov eax, offset boot_pointers + 3
    mov [boot_root], eax
    mov eax, offset boot_root
    mov cr3, eax

    mov eax, 0x620                  # CR4: PAE, OSFXSR, OSXMMEXCPT
    mov cr4, eax
    mov ecx, 0xc0000080             # EFER: LME, NXE
    rdmsr
    or eax, 0x900
    wrmsr
    mov eax, 0x80010033             # CR0: PG, WP, NE, ET, MP, PE
    mov cr0, eax

    lgdt [boot_gdt_pointer]
    # A far jump, spelled out: assemblers disagree on its Intel syntax.
    .byte 0xea
    .long long_mode
    .word 8

    .code64
long_mode:
    mov eax, 16
    mov ds, eax
    mov es, eax
    mov ss, eax
    xor eax, eax
    mov fs, eax
    mov gs, eax

    lea rsp, [{main_stack} + {stack_size}]
    mov edi, ebx                    # first argument: hvm_start_info
    shl rsi, 32                     # second argument: time of entry
    mov eax, ebp
    or rsi, rax

    mov eax, 1
    cpuid
    bt ecx, 26                      # XSAVE
    jnc 4f
    mov rax, cr4
    bts rax, 18                     # OSXSAVE
    mov cr4, rax
    mov eax, 0xd
    xor ecx, ecx
    cpuid                           # eax: components that XCR0 may enable
    and eax, 0xe7                   # x87, SSE, AVX, AVX-512
    xor edx, edx
    xor ecx, ecx
    xsetbv
4:
    xor ebp, ebp                    # ends back traces
    call {kernel_main}
    ud2

    .section .rodata, "a"
    .balign 8
boot_gdt:
    .quad 0
    .quad 0x00af9b000000ffff        # 64-bit code, accessed
    .quad 0x00cf93000000ffff        # data, accessed
boot_gdt_pointer:
    .word 23
    .long boot_gdt

    .section .bss, "aw", @nobits
    .balign 4096
boot_root:
    .skip 4096
boot_pointers:
    .skip 4096
boot_directories:
    .skip 4 * 4096
