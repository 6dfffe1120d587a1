# From the PVH entry point to Rust, and from a start-up message to Rust.
#
# PVH (Xen, docs/misc/pvh.pandoc): 32-bit protected mode, flat segments, paging
# off, interrupts off, %ebx = physical address of hvm_start_info. No stack.
# Another processor begins in real mode, at a page that the message names (Intel
# SDM 3A, 9.4.4.2); what it runs there leads to the same modes.
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

# From 32-bit mode without paging to `\target` in 64-bit mode; CR3 is set.
.macro enter_long_mode target
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
    .long \target
    .word 8
.endm

# The first instructions in 64-bit mode.
.macro load_segments
    mov eax, 16
    mov ds, eax
    mov es, eax
    mov ss, eax
    xor eax, eax
    mov fs, eax
    mov gs, eax
.endm

# Turns AVX on, where there is any. Takes eax, ebx, ecx and edx.
.macro enable_avx
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
.endm

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
    enter_long_mode long_mode

    .code64
long_mode:
    load_segments
    lea rsp, [{boot_stacks} + {main_stack}]
    mov edi, ebx                    # first argument: hvm_start_info
    shl rsi, 32                     # second argument: time of entry
    mov eax, ebp
    or rsi, rax
    enable_avx
    xor ebp, ebp                    # ends back traces
    call {kernel_main}
    ud2

    # Where trampoline jumps to: 32-bit mode, flat code, interrupts off.
    .code32
processor_entry:
    cld
    mov eax, 16
    mov ds, eax
    mov ss, eax
    mov eax, [{root}]               # the address space of the first processor
    mov cr3, eax
    enter_long_mode processor_long_mode

    .code64
processor_long_mode:
    load_segments
    enable_avx
    # What one processor has taken, a late one must not take as well.
    xor edi, edi
    xchg [rip + {start}], rdi       # first argument: what to start with
    test rdi, rdi
    jz 5f
    mov rsp, [rdi]
    xor ebp, ebp                    # ends back traces
    call {processor_main}
    ud2
5:  cli
    hlt
    jmp 5b

    .section .rodata, "a"
    .balign 8
boot_gdt:
    .quad 0
    .quad 0x00af9b000000ffff        # 64-bit code, accessed
    .quad 0x00cf93000000ffff        # data, accessed
    .quad 0x00cf9b000000ffff        # 32-bit code, accessed
boot_gdt_pointer:
    .word 31
    .long boot_gdt

    # The first instructions of another processor, to be copied to a page below
    # 1 MiB. In real mode with that page as code segment; nothing else is known.
    .global trampoline
    .global trampoline_end
    .code16
trampoline:
    cli
    # lgdt cs:[pointer], of 32 bits, spelled out for the same reason as jumps.
    .byte 0x66, 0x2e, 0x0f, 0x01, 0x16
    .word trampoline_gdt_pointer - trampoline
    mov eax, cr0
    or al, 1                        # PE
    mov cr0, eax
    .byte 0x66, 0xea
    .long processor_entry
    .word 24
trampoline_gdt_pointer:
    .word 31
    .long boot_gdt
trampoline_end:
    .code64

    .section .bss, "aw", @nobits
    .balign 4096
boot_root:
    .skip 4096
boot_pointers:
    .skip 4096
boot_directories:
    .skip 4 * 4096
