/* SPDX-License-Identifier: MIT
 * How much of usbfs's memory the transfers of one device may hold at the kernel.
 *
 * The kernel allows 16 MiB for all USB devices of the host together (usbfs_memory_mb), so that one
 * device's transfers can starve another's. Shares, so that reads for which nothing comes keep
 * nothing else from going on: IN and OUT have half of the limit each, control and interrupt
 * transfers a small reserve each (of a composite device one part's reads must not silence the
 * other part's events).
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum usbfs_share {
	USBFS_SHARE_CONTROL,
	USBFS_SHARE_INTERRUPT,
	USBFS_SHARE_IN,
	USBFS_SHARE_OUT,
	USBFS_SHARE_COUNT_,
};

/* Of control and of interrupt transfers, in addition to the limit. */
#define USBFS_RESERVE (64u * 1024)
/* What the kernel counts for a URB beside its data, and some. */
#define USBFS_URB_OVERHEAD 1024u

struct usbfs_budget {
	size_t limit; /* bytes of IN and OUT together */
	size_t used[USBFS_SHARE_COUNT_];
};

/* Takes bytes from the share, if they fit or nothing else is taken from it: what is larger than the
 * share goes alone. */
bool usbfs_budget_take(struct usbfs_budget *b, enum usbfs_share share, size_t bytes);
void usbfs_budget_give(struct usbfs_budget *b, enum usbfs_share share, size_t bytes);
