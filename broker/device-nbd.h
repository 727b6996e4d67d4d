/* SPDX-License-Identifier: MIT
 * An NBD server's export that a VM sees as a USB stick or CD-ROM drive: a struct device_disk whose
 * image is a connected socket.
 *
 * Such a connection serves one worker, once: nothing of a session can be taken over. So the disk is
 * lent once; to lend it again its owner adds it again, with a new connection, under the same name.
 */
#pragma once

#include <stdbool.h>

#include "base/cleanup.h"
#include "broker/device-disk.h"

extern const struct device_ops device_nbd_ops;

/* k, about to be announced: its socket and export. held: a worker has it, and there is no socket.
 * 0 or a refusal. */
int device_nbd_check(struct device_disk *k, bool held, struct refusal_text *text) _must_check_;

/* Forgets a disk of that name (without "disk:") whose connection is used up, so that it can be
 * added again. */
void device_nbd_forget_used(struct broker *b, const char *name);
