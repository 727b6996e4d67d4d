/* SPDX-License-Identifier: MIT
 * Runs devbroker-claim: what has to be done to a host's device with ioctls that may block.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/cleanup.h"

struct broker;
struct claim_run;

#define CLAIM_AS_IT_IS UINT32_MAX

/* In the order in which it is done. */
struct claim_steps {
	bool deauthorize; /* the whole device, through authorized_fd */
	bool reset;
	uint32_t configuration; /* bConfigurationValue, or CLAIM_AS_IT_IS */
	uint32_t disconnect;    /* interface numbers, a bit each: host drivers are taken off */
	uint32_t connect;       /* host drivers are looked for */
	bool authorize;
	int authorized_fd; /* -1 without one of the two; borrowed */
};

/* error: 0; -errno of the first step that failed, the rest was not done; -ETIMEDOUT: it hangs in
 * the kernel. interfaces: whose driver is off, or was looked for. */
typedef void (*claim_done)(void *userdata, int error, uint32_t interfaces);

/* Starts it on device_fd, a usbfs node without dropped privileges (borrowed). done is called once,
 * from the loop. 0 or -errno. */
int claim_run(struct broker *b, const char *name, int device_fd, const struct claim_steps *steps,
	claim_done done, void *userdata, struct claim_run **out) _must_check_;
/* done is not called any more; what has begun goes on to its end. NULL is fine. */
void claim_forget(struct claim_run *c);
