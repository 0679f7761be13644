/* probe.h: what the parts of the probe share: how they tell what came of an attempt, and the attempts by the check's number. */

#pragma once

#include <sys/types.h>

/* Our own path. */
extern char self[4096];

/* Tell of an attempt, as a JSON line. */
void tell(int check, const char *what, const char *format, ...) __attribute__((format(printf, 3, 4)));
/* What was said as KEY=VALUE, or NULL. */
const char *value(const char *key);
/* The result of a system call: its errno by name if it is negative. */
const char *name_of(long result);
/* Tell of an attempt and what a system call came to. */
void tell_call(int check, const char *what, long result);
/* Try to open a path and tell of it; how is in its label. */
void try_open(int check, const char *how, const char *path, int flags);
/* Read a file as text; how long it is, or -1. */
ssize_t slurp(const char *path, char *text, size_t size);
/* Tell of each line of a file. */
void tell_lines(int check, const char *path);
/* Tell of one line of a file such as /proc/self/status. */
void status_line(int check, const char *what, const char *path, const char *key);
/* Tell which ids we have. */
void tell_ids(const char *label);

void p1(void);
void p2(void);
void p3(void);
void p4(void);
void p5(void);
void p6(void);
void p7(void);
void p8(void);
void p9(void);
void p10(void);
void p11(void);
void p12(void);
void p13(void);
void p14(void);
void p15(void);
void p16(void);
void p17(void);
void p18(void);
void p19(void);
void p20(void);
void p22(void);
void p31(void);
