/* SPDX-License-Identifier: MIT
 * Apart from scsi-reply.c: what refuses commands of a real disk tells why in the same words.
 */
#include <string.h>

#include "usb/scsi.h"

size_t scsi_reply_sense(uint8_t *reply, uint32_t sense, bool descriptor)
{
	uint8_t key = (uint8_t)(sense >> 16), asc = (uint8_t)(sense >> 8), ascq = (uint8_t)sense;

	if (descriptor) { /* SPC-3 4.5.2 */
		memset(reply, 0, 8);
		reply[0] = 0x72;
		reply[1] = key;
		reply[2] = asc;
		reply[3] = ascq;
		return 8;
	}
	memset(reply, 0, 18); /* SPC-3 4.5.3 */
	reply[0] = 0x70;
	reply[2] = key;
	reply[7] = 10;
	reply[12] = asc;
	reply[13] = ascq;
	return 18;
}
