/* SPDX-License-Identifier: MIT */
#include "usb/usbfs-budget.h"

#include <assert.h>

static size_t share_limit(const struct usbfs_budget *b, enum usbfs_share share)
{
	return share == USBFS_SHARE_IN || share == USBFS_SHARE_OUT ? b->limit / 2 : USBFS_RESERVE;
}

bool usbfs_budget_take(struct usbfs_budget *b, enum usbfs_share share, size_t bytes)
{
	size_t limit = share_limit(b, share);
	size_t *used = &b->used[share];

	if (*used > 0 && (*used > limit || bytes > limit - *used)) {
		return false;
	}
	*used += bytes;
	return true;
}

void usbfs_budget_give(struct usbfs_budget *b, enum usbfs_share share, size_t bytes)
{
	assert(b->used[share] >= bytes);
	b->used[share] -= bytes;
}
