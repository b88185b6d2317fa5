/* A plugin of QEMU (TCG plugins, version 1): the exact instructions, loads and stores between two functions, and the deepest stack.
 *
 * Arguments: begin=ADDRESS,end=ADDRESS,low=ADDRESS,top=ADDRESS,out=FILE. The stack lies from low to top and grows down. For each
 * pair of calls a line "instructions N loads N stores N stack N" is written. What is used of QEMU's interface is declared here,
 * because distributions do not ship its header.
 */
#include <inttypes.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define EXPORTED __attribute__((visibility("default")))

struct qemu_plugin_tb;
struct qemu_plugin_insn;
struct qemu_info;
extern void qemu_plugin_register_vcpu_tb_trans_cb(uint64_t, void (*)(uint64_t, struct qemu_plugin_tb *));
extern void qemu_plugin_register_vcpu_insn_exec_inline(struct qemu_plugin_insn *, int, void *, uint64_t);
extern void qemu_plugin_register_vcpu_insn_exec_cb(struct qemu_plugin_insn *, void (*)(unsigned, void *), int, void *);
extern void qemu_plugin_register_vcpu_mem_cb(struct qemu_plugin_insn *, void (*)(unsigned, uint32_t, uint64_t, void *), int, int, void *);
extern size_t qemu_plugin_tb_n_insns(const struct qemu_plugin_tb *);
extern struct qemu_plugin_insn *qemu_plugin_tb_get_insn(const struct qemu_plugin_tb *, size_t);
extern uint64_t qemu_plugin_insn_vaddr(const struct qemu_plugin_insn *);
extern bool qemu_plugin_mem_is_store(uint32_t);
extern void qemu_plugin_register_atexit_cb(uint64_t, void (*)(uint64_t, void *), void *);
EXPORTED int qemu_plugin_version = 1;

enum { ADD = 0, ANY_REGISTERS = 0, READ_AND_WRITE = 3 };

static uint64_t begin, end, low, top;
static uint64_t instructions, loads, stores, lowest;
static uint64_t instructions_before, loads_before, stores_before;
static bool counting;
static FILE *out;

static void on_begin(unsigned cpu, void *data) {
    (void)cpu;
    (void)data;
    instructions_before = instructions;
    loads_before = loads;
    stores_before = stores;
    lowest = top;
    counting = true;
}

static void on_end(unsigned cpu, void *data) {
    (void)cpu;
    (void)data;
    if (!counting) { return; }
    counting = false;
    fprintf(out, "instructions %" PRIu64 " loads %" PRIu64 " stores %" PRIu64 " stack %" PRIu64 "\n", instructions - instructions_before, loads - loads_before, stores - stores_before,
            top - lowest);
}

static void on_memory(unsigned cpu, uint32_t info, uint64_t address, void *data) {
    (void)cpu;
    (void)data;
    if (qemu_plugin_mem_is_store(info)) {
        stores++;
        if (address >= low && address < lowest) { lowest = address; }
    } else {
        loads++;
    }
}

static void on_block(uint64_t id, struct qemu_plugin_tb *block) {
    size_t i, n = qemu_plugin_tb_n_insns(block);
    (void)id;
    for (i = 0; i < n; i++) {
        struct qemu_plugin_insn *instruction = qemu_plugin_tb_get_insn(block, i);
        uint64_t address = qemu_plugin_insn_vaddr(instruction);
        if (address == begin) { qemu_plugin_register_vcpu_insn_exec_cb(instruction, on_begin, ANY_REGISTERS, NULL); }
        if (address == end) { qemu_plugin_register_vcpu_insn_exec_cb(instruction, on_end, ANY_REGISTERS, NULL); }
        qemu_plugin_register_vcpu_insn_exec_inline(instruction, ADD, &instructions, 1);
        qemu_plugin_register_vcpu_mem_cb(instruction, on_memory, ANY_REGISTERS, READ_AND_WRITE, NULL);
    }
}

static void on_exit_of_qemu(uint64_t id, void *data) {
    (void)id;
    (void)data;
    fclose(out);
}

EXPORTED int qemu_plugin_install(uint64_t id, const struct qemu_info *info, int n, char **arguments) {
    int i;
    (void)info;
    for (i = 0; i < n; i++) {
        char *value = strchr(arguments[i], '=');
        if (!value) { return -1; }
        *value++ = 0;
        if (!strcmp(arguments[i], "begin")) {
            begin = strtoull(value, NULL, 0);
        } else if (!strcmp(arguments[i], "end")) {
            end = strtoull(value, NULL, 0);
        } else if (!strcmp(arguments[i], "low")) {
            low = strtoull(value, NULL, 0);
        } else if (!strcmp(arguments[i], "top")) {
            top = strtoull(value, NULL, 0);
        } else if (!strcmp(arguments[i], "out")) {
            out = fopen(value, "w");
        } else {
            return -1;
        }
    }
    if (!out) { return -1; }
    qemu_plugin_register_vcpu_tb_trans_cb(id, on_block);
    qemu_plugin_register_atexit_cb(id, on_exit_of_qemu, NULL);
    return 0;
}
