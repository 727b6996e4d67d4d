/* SPDX-License-Identifier: MIT
 * Kills a process at each of its system calls in turn, before the call and after it.
 */
#pragma once

#include <stdbool.h>

/* Runs act(userdata) in a child, which is killed at its nth stop (from 1); stops are where a system
 * call begins and where it ends. False: it had ended before that. Fails the test if it can't be
 * traced. */
bool kill_at(unsigned int n, void (*act)(void *userdata), void *userdata);
