/* SPDX-License-Identifier: MIT
 * What a CD-ROM drive answers beside what every SCSI device does: the replies of usb/scsi for a
 * unit whose cdrom is set. One data track in one session, from the medium's first block to its
 * last.
 *
 * Sources: MMC-6; which of it guests ask for: the kernel's drivers/scsi/sr.c and
 * drivers/cdrom/cdrom.c, SeaBIOS's src/hw/blockcmd.c, EDK II's UsbMassStorageDxe.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "usb/scsi.h"

#define MMC_BLOCK_SIZE 2048

/* What is in bytes 1 to 9 of an MMC command, by its kind; pure, like scsi_decode, which calls it.
 * SENSE_NONE, or the sense code; c is filled as far as it goes. */
uint32_t mmc_decode(const uint8_t *cdb, struct scsi_command *c) _must_check_;

/* Each fills reply (SCSI_REPLY_MAX bytes) and returns its whole length; 0: there is none, and
 * *sense_out says why. u->ejected is looked at only where the command works without a medium. */
size_t mmc_reply_toc(const struct scsi_unit *u, const struct scsi_command *c, uint8_t *reply,
	uint32_t *sense_out);
size_t mmc_reply_configuration(
	const struct scsi_unit *u, const struct scsi_command *c, uint8_t *reply);
/* Tells the medium's last event, once. */
size_t mmc_reply_event(
	struct scsi_unit *u, const struct scsi_command *c, uint8_t *reply, uint32_t *sense_out);
size_t mmc_reply_disc_information(
	const struct scsi_command *c, uint8_t *reply, uint32_t *sense_out);
size_t mmc_reply_track_information(const struct scsi_unit *u, const struct scsi_command *c,
	uint8_t *reply, uint32_t *sense_out);
size_t mmc_reply_dvd_structure(const struct scsi_unit *u, const struct scsi_command *c,
	uint8_t *reply, uint32_t *sense_out);
size_t mmc_reply_mechanism(const struct scsi_unit *u, uint8_t *reply);

/* Mode pages 01h and 2Ah into out (MMC_MODE_PAGE_MAX bytes); their length, 0: no such page.
 * changeable: the mask of what MODE SELECT may change, which is nothing. */
size_t mmc_mode_page(const struct scsi_unit *u, uint8_t page, bool changeable, uint8_t *out);
#define MMC_MODE_PAGE_MAX 22
