/* Classifies the digits that the export stored with the network, on a bare Cortex-M4 under QEMU. See README.md. */
#define DIGITS_CNN_SELF_TEST
#include "digits_cnn.h"

#include "machine.h"

static digits_cnn_ctx_t ctx;
static uint8_t digit[DIGITS_CNN_INPUT_LENGTH];

int main(void) {
    const uint32_t n = sizeof digits_cnn_test_inputs / DIGITS_CNN_INPUT_LENGTH;
    uint32_t i, j;
    if (digits_cnn_self_test(&ctx) != 0) {
        machine_write("this core computes something else than Python\n");
        return 1;
    }
    for (i = 0; i < n; i++) {
        char text[] = "digit .. is a .\n";
        for (j = 0; j < DIGITS_CNN_INPUT_LENGTH; j++) { digit[j] = digits_cnn_test_inputs[i * DIGITS_CNN_INPUT_LENGTH + j]; }
        if (digits_cnn_init(&ctx) || digits_cnn_set_input(&ctx, digit, DIGITS_CNN_INPUT_LENGTH) || digits_cnn_run(&ctx, DIGITS_CNN_N_STEPS)) { return 2; }
        text[6] = (char)('0' + i / 10u);
        text[7] = (char)('0' + i % 10u);
        text[14] = (char)('0' + digits_cnn_predict(&ctx));
        machine_write(text);
    }
    return 0;
}
