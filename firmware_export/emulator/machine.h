/* What a measured program needs of the machine it runs on. */
#ifndef MACHINE_H
#define MACHINE_H
#include <stdint.h>

void machine_write(const char *text);
void machine_exit(int status);
void machine_begin(void); /* from here on instructions are counted, */
void machine_end(void);   /* up to here */

#endif
