/* SPDX-License-Identifier: MIT
 * The one thread for calls that may block for seconds (a device's reset, a claim), so that the loop
 * goes on answering the broker meanwhile.
 */
#pragma once

#include <stdbool.h>
#include <systemd/sd-event.h>

#include "base/cleanup.h"

struct blocking;

/* Starts the thread. done is called on the loop after each call. 0 or -errno. */
int blocking_create(sd_event *event, void (*done)(void *userdata), void *userdata,
	struct blocking **out) _must_check_;
/* Waits for the call that is running, whose done is not called any more. Takes NULL. */
void blocking_destroy(struct blocking *b);

/* Runs call(userdata) on the thread. Must not be busy. What call reads and writes belongs to the
 * thread until done. */
void blocking_run(struct blocking *b, void (*call)(void *userdata), void *userdata);
/* From blocking_run until done is called. */
bool blocking_busy(const struct blocking *b);
