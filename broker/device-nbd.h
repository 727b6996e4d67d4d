/* SPDX-License-Identifier: MIT
 * An NBD server's export that a VM sees as a USB stick or CD-ROM drive: a struct device_disk whose
 * image is a connected socket.
 *
 * Such a connection serves one worker, once: nothing of a session can be taken over. So the disk is
 * lent once; to lend it again its owner adds it again, with a new connection, under the same name.
 * While a VM has it and its server is gone that is the way to bring it back: the guest sees a stick
 * that is unplugged and plugged in again, because what a new server has of writes that were not
 * flushed is unknown.
 */
#pragma once

#include <stdbool.h>

#include "base/cleanup.h"
#include "broker/device-disk.h"

extern const struct device_ops device_nbd_ops;

/* k, about to be announced: its socket and export. held: a worker has it, and there is no socket.
 * 0 or a refusal. */
int device_nbd_check(struct device_disk *k, bool held, struct refusal_text *text) _must_check_;

/* The disk of options' name is added again, or one whose name is free. 0 with the disk: a VM has it
 * and its connection is over, and it is lent anew with the next one, which is taken then;
 * REFUSAL_NOT_FOUND: there is none that this could be for (one that no VM has and whose connection
 * is used up or over is forgotten): add it; other refusals with text. */
int device_nbd_renew(struct broker *b, const struct device_disk_options *options,
	struct device **out, struct refusal_text *text) _must_check_;
