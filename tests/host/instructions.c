/*
 * A plugin of QEMU: where a machine with one processor executes how many instructions, between marks.
 *
 * A mark is `hint #100`, which does nothing. The first one begins a phase, the next one ends it, and so on. For each phase the file that
 * the argument `out=` names gets a line `phase NUMBER`, then a line `ADDRESS INSTRUCTIONS` (hexadecimal, decimal) for each block of code.
 *
 * QEMU's header is in no Debian package: what is used of it is declared here (API version 1).
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct qemu_plugin_tb;
struct qemu_plugin_insn;
typedef void (*on_translation)(uint64_t plugin, struct qemu_plugin_tb *block);
typedef void (*on_execution)(unsigned processor, void *argument);
enum { NO_REGISTERS, INLINE_ADD_U64 = 0 };
void qemu_plugin_register_vcpu_tb_trans_cb(uint64_t plugin, on_translation callback);
void qemu_plugin_register_vcpu_tb_exec_inline(struct qemu_plugin_tb *block, int operation, void *counter, uint64_t operand);
void qemu_plugin_register_vcpu_insn_exec_cb(struct qemu_plugin_insn *instruction, on_execution callback, int registers, void *argument);
size_t qemu_plugin_tb_n_insns(const struct qemu_plugin_tb *block);
uint64_t qemu_plugin_tb_vaddr(const struct qemu_plugin_tb *block);
struct qemu_plugin_insn *qemu_plugin_tb_get_insn(const struct qemu_plugin_tb *block, size_t index);
const void *qemu_plugin_insn_data(const struct qemu_plugin_insn *instruction);

#define EXPORTED __attribute__((visibility("default")))
EXPORTED int qemu_plugin_version = 1;

enum { HASHES = 1 << 16, MARK = 0xd503201f | 100 << 5 };

static struct block {
    uint64_t address, instructions, executed, executed_before;
    struct block *next;
} *blocks[HASHES];

static FILE *out;
static unsigned marks;

static void on_mark(unsigned processor, void *argument)
{
    (void)processor;
    (void)argument;
    int ends = marks++ % 2;

    if (ends)
        fprintf(out, "phase %u\n", marks / 2);
    for (int hash = 0; hash < HASHES; hash++) {
        for (struct block *block = blocks[hash]; block != NULL; block = block->next) {
            uint64_t times = block->executed - block->executed_before;
            if (ends && times > 0)
                fprintf(out, "%" PRIx64 " %" PRIu64 "\n", block->address, times * block->instructions);
            block->executed_before = block->executed;
        }
    }
    fflush(out);
}

static struct block *known_block(uint64_t address, uint64_t instructions)
{
    struct block **list = &blocks[(address >> 2 ^ address >> 18 ^ instructions) % HASHES];

    for (struct block *block = *list; block != NULL; block = block->next)
        if (block->address == address && block->instructions == instructions)
            return block;
    struct block *block = calloc(1, sizeof(*block));
    if (block == NULL)
        abort();
    *block = (struct block){ .address = address, .instructions = instructions, .next = *list };
    return *list = block;
}

static void on_block(uint64_t plugin, struct qemu_plugin_tb *block)
{
    size_t instructions = qemu_plugin_tb_n_insns(block);
    struct block *known = known_block(qemu_plugin_tb_vaddr(block), instructions);

    (void)plugin;
    qemu_plugin_register_vcpu_tb_exec_inline(block, INLINE_ADD_U64, &known->executed, 1);
    for (size_t index = 0; index < instructions; index++) {
        struct qemu_plugin_insn *instruction = qemu_plugin_tb_get_insn(block, index);
        uint32_t word;
        memcpy(&word, qemu_plugin_insn_data(instruction), sizeof(word));
        if (word == (uint32_t)MARK)
            qemu_plugin_register_vcpu_insn_exec_cb(instruction, on_mark, NO_REGISTERS, NULL);
    }
}

EXPORTED int qemu_plugin_install(uint64_t plugin, const void *machine, int count, char **arguments)
{
    (void)machine;
    for (int number = 0; number < count; number++)
        if (strncmp(arguments[number], "out=", 4) == 0)
            out = fopen(arguments[number] + 4, "w");
    if (out == NULL) {
        fputs("instructions: out= names no file that can be written\n", stderr);
        return 1;
    }
    qemu_plugin_register_vcpu_tb_trans_cb(plugin, on_block);
    return 0;
}
