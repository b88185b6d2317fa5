/* An AVR under simavr: the serial port writes, Timer 1 counts cycles. */
#include <avr/interrupt.h>
#include <avr/io.h>
#include <avr/sleep.h>

#include "machine.h"

static volatile uint16_t overflows;
ISR(TIMER1_OVF_vect) { overflows++; }

void machine_write(const char *text) {
    UCSR0B = (1 << TXEN0);
    for (; *text; text++) {
        while (!(UCSR0A & (1 << UDRE0))) {}
        UDR0 = (uint8_t)*text;
    }
}

void machine_exit(int status) {
    machine_write(status ? "status 1\n" : "status 0\n");
    cli();
    sleep_mode();
    for (;;) {}
}

void machine_begin(void) {
    overflows = 0;
    TIMSK1 = (1 << TOIE1);
    TCCR1A = 0;
    TIFR1 = (1 << TOV1);
    TCNT1 = 0;
    TCCR1B = 1;
    sei();
}

void machine_end(void) {
    char text[24] = "cycles ";
    uint32_t cycles;
    uint16_t count;
    uint8_t i = 22;
    cli();
    count = TCNT1; /* a timer that stands reads 0 under simavr */
    if ((TIFR1 & (1 << TOV1)) && count < 0x8000u) { overflows++; } /* since interrupts are off */
    TCCR1B = 0;
    cycles = ((uint32_t)overflows << 16) + count;
    text[23] = 0;
    text[22] = '\n';
    while (i > 7) {
        text[--i] = (char)('0' + cycles % 10u);
        cycles /= 10u;
    }
    machine_write(text);
}
