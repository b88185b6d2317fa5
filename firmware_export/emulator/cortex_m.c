/* A bare Cortex-M under QEMU: vector table, start, and semihosting by `bkpt 0xab`. */
#include "machine.h"

extern uint32_t data_load[], data_start[], data_end[], bss_start[], bss_end[], stack_top[];
int main(void);

static long semihost(long operation, const void *argument) {
    register long r0 __asm__("r0") = operation;
    register const void *r1 __asm__("r1") = argument;
    __asm__ volatile("bkpt 0xab" : "+r"(r0) : "r"(r1) : "memory");
    return r0;
}

void machine_write(const char *text) { (void)semihost(0x04, text); }

void machine_exit(int status) {
    uint32_t block[2];
    block[0] = 0x20026u; /* the program ended by itself */
    block[1] = (uint32_t)status;
    (void)semihost(0x20, block);
    for (;;) {}
}

__attribute__((noinline, used)) void machine_begin(void) { __asm__ volatile("" ::: "memory"); }
__attribute__((noinline, used)) void machine_end(void) { __asm__ volatile("nop" ::: "memory"); }

void reset_handler(void);
void reset_handler(void) {
    uint32_t *from = data_load, *to;
    for (to = data_start; to < data_end;) { *to++ = *from++; }
    for (to = bss_start; to < bss_end;) { *to++ = 0; }
#if defined(__ARM_FP) || defined(__ARM_FEATURE_MVE)
    *(volatile uint32_t *)0xE000ED88u |= 0xFu << 20; /* switch the coprocessors on */
    __asm__ volatile("dsb\nisb");
#endif
    machine_exit(main());
}

static void fault_handler(void) {
    machine_write("fault\n");
    machine_exit(99);
}

__attribute__((section(".vectors"), used)) static void (*const vectors[16])(void) = {
    (void (*)(void))(uintptr_t)stack_top, reset_handler, fault_handler, fault_handler, fault_handler, fault_handler, fault_handler, fault_handler,
    0, 0, 0, fault_handler, fault_handler, 0, fault_handler, fault_handler,
};
