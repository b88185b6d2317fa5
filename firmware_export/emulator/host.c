/* A computer: standard output. */
#include <stdio.h>
#include <stdlib.h>

#include "machine.h"

void machine_write(const char *text) { (void)fputs(text, stdout); }
void machine_exit(int status) { exit(status); }
void machine_begin(void) {}
void machine_end(void) {}
