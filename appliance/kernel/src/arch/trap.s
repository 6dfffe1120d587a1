# Entry points of exceptions and interrupts.
#
# Each runs on a stack of its own (IST), so the red zone of the code that was
# interrupted stays intact. Exceptions do not return. Interrupts only end a HLT:
# their entry acknowledges them and touches no register that it does not restore.

    .section .text, "ax"
    .code64

.macro exception number, has_code=0
    .balign 16
exception_\number:
.if \has_code == 0
    push 0
.endif
    push \number
    jmp exception_common
.endm

    exception 0
    exception 1
    exception 2
    exception 3
    exception 4
    exception 5
    exception 6
    exception 7
    exception 8, 1
    exception 9
    exception 10, 1
    exception 11, 1
    exception 12, 1
    exception 13, 1
    exception 14, 1
    exception 15
    exception 16
    exception 17, 1
    exception 18
    exception 19
    exception 20
    exception 21, 1
    exception 22
    exception 23
    exception 24
    exception 25
    exception 26
    exception 27
    exception 28
    exception 29, 1
    exception 30, 1
    exception 31

exception_common:
    push rax
    push rbx
    push rcx
    push rdx
    push rsi
    push rdi
    push rbp
    push r8
    push r9
    push r10
    push r11
    push r12
    push r13
    push r14
    push r15
    cld
    mov rdi, rsp
    and rsp, -16
    call {exception_report}
    ud2

    .balign 16
    .global interrupt_entry
interrupt_entry:
    push rax
    push rcx
    push rdx
    mov rax, [rip + {eoi_register}]
    test rax, rax
    jz 5f
    mov dword ptr [rax], 0          # xAPIC: memory
    jmp 6f
5:  mov ecx, 0x80b                  # x2APIC: IA32_X2APIC_EOI
    xor eax, eax
    xor edx, edx
    wrmsr
6:  pop rdx
    pop rcx
    pop rax
    iretq

    # A spurious interrupt must not be acknowledged (Intel SDM 3A, 12.9).
    .balign 16
    .global spurious_entry
spurious_entry:
    iretq

    .section .rodata, "a"
    .balign 8
    .global exception_entries
exception_entries:
    .irp number, 0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15
    .quad exception_\number
    .endr
    .irp number, 16,17,18,19,20,21,22,23,24,25,26,27,28,29,30,31
    .quad exception_\number
    .endr
