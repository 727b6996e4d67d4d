/* SPDX-License-Identifier: MIT
 * Runs in the test guests: asks a USB device for things over usbfs.
 *
 *   usbpoke reset NODE
 *   usbpoke control NODE SECONDS          GET_DESCRIPTOR(device) over and over; JSON: how many, how
 *                                         many failed, the longest in milliseconds
 *   usbpoke flood NODE INTERFACE EP SIZE SECONDS
 *                                         as many bulk transfers at once as the kernel takes
 *   usbpoke alt NODE INTERFACE ALT        claims the interface and selects an altsetting
 *   usbpoke config NODE VALUE
 *   usbpoke request NODE TYPE REQUEST VALUE INDEX
 *                                         one control request without data; JSON: its errno, or 0
 *   usbpoke scsi NODE in|out LENGTH COMMAND
 *                                         of a disk, COMMAND in hex; JSON: sense key and code
 *   usbpoke tty NODE                      a serial line as it should be: raw, no echo
 *   usbpoke play|record NODE CHANNELS     16 bits at 48 kHz from standard input, or to standard
 * output
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/usbdevice_fs.h>
#include <scsi/sg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/soundcard.h>
#include <termios.h>
#include <time.h>
#include <unistd.h>

#define URBS_MAX 64

static double now_ms(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (double)ts.tv_sec * 1000 + (double)ts.tv_nsec / 1000000;
}

static int fail(const char *what)
{
	fprintf(stderr, "usbpoke: %s: %s\n", what, strerror(errno));
	return 1;
}

static int control(int fd, double seconds)
{
	double end = now_ms() + seconds * 1000, longest = 0;
	unsigned int done = 0, failed = 0;
	int error = 0;

	while (now_ms() < end) {
		unsigned char data[18];
		struct usbdevfs_ctrltransfer c = {0x80, 6, 0x0100, 0, sizeof(data), 5000, data};
		double start = now_ms(), took;

		if (ioctl(fd, USBDEVFS_CONTROL, &c) != sizeof(data)) {
			failed++;
			error = errno;
		}
		took = now_ms() - start;
		longest = took > longest ? took : longest;
		done++;
	}
	printf("{\"done\": %u, \"failed\": %u, \"longest_ms\": %.1f, \"error\": %d}\n", done,
		failed, longest, error);
	return 0;
}

static int flood(int fd, char **argv)
{
	static struct usbdevfs_urb urbs[URBS_MAX];
	int interface = atoi(argv[0]), size = atoi(argv[2]), n = 0;
	double end = now_ms() + atof(argv[3]) * 1000;
	unsigned int done = 0, failed = 0;

	if (ioctl(fd, USBDEVFS_CLAIMINTERFACE, &interface) < 0) {
		return fail("claim");
	}
	while (n < URBS_MAX) {
		struct usbdevfs_urb *u = &urbs[n];

		u->type = USBDEVFS_URB_TYPE_BULK;
		u->endpoint = (unsigned char)strtoul(argv[1], NULL, 0);
		u->buffer = malloc((size_t)size);
		u->buffer_length = size;
		if (ioctl(fd, USBDEVFS_SUBMITURB, u) < 0) {
			break;
		}
		n++;
	}
	for (int left = n; left > 0;) {
		struct usbdevfs_urb *u = NULL;

		if (ioctl(fd, USBDEVFS_REAPURBNDELAY, &u) < 0) {
			if (errno != EAGAIN) {
				return fail("reap");
			}
			if (now_ms() > end) {
				break;
			}
			usleep(1000);
			continue;
		}
		done++;
		failed += u->status != 0;
		if (now_ms() > end || ioctl(fd, USBDEVFS_SUBMITURB, u) < 0) {
			left--;
		}
	}
	printf("{\"at_once\": %d, \"done\": %u, \"failed\": %u}\n", n, done, failed);
	return n > 0 ? 0 : 1;
}

static int tty_raw(int fd)
{
	struct termios t;

	if (tcgetattr(fd, &t) < 0) {
		return fail("tcgetattr");
	}
	cfmakeraw(&t);
	return tcsetattr(fd, TCSANOW, &t) < 0 ? fail("tcsetattr") : 0;
}

static int play_saw(int fd, int channels, int frames)
{
	for (int i = 0; i < frames; i++) {
		int16_t frame[8];

		for (int c = 0; c < channels; c++) {
			frame[c] = (int16_t)(i % 20000 + 1);
		}
		if (write(fd, frame, 2 * (size_t)channels) < 0) {
			return fail("play");
		}
	}
	return ioctl(fd, SNDCTL_DSP_SYNC, 0) < 0 ? fail("sync") : 0;
}

static int record_all(int fd, int channels, int frames)
{
	size_t left = 2 * (size_t)channels * (size_t)frames;
	char data[960];

	while (left > 0) {
		ssize_t n = read(fd, data, left < sizeof(data) ? left : sizeof(data));

		if (n <= 0 || write(STDOUT_FILENO, data, (size_t)n) != n) {
			return fail("record");
		}
		left -= (size_t)n;
	}
	return 0;
}

static int sound(int fd, bool play, int channels, double seconds)
{
	/* Fragments of 1 KiB. */
	int format = AFMT_S16_LE, rate = 48000, fragments = (16 << 16) | 10;

	if (ioctl(fd, SNDCTL_DSP_SETFRAGMENT, &fragments) < 0 ||
		ioctl(fd, SNDCTL_DSP_SETFMT, &format) < 0 ||
		ioctl(fd, SNDCTL_DSP_CHANNELS, &channels) < 0 ||
		ioctl(fd, SNDCTL_DSP_SPEED, &rate) < 0 || rate != 48000 || channels > 8) {
		return fail("sound");
	}
	return play ? play_saw(fd, channels, (int)(48000 * seconds))
		    : record_all(fd, channels, (int)(48000 * seconds));
}

static int set_alt(int fd, int interface, int alt)
{
	struct usbdevfs_setinterface s = {(unsigned int)interface, (unsigned int)alt};

	if (ioctl(fd, USBDEVFS_CLAIMINTERFACE, &interface) < 0) {
		return fail("claim");
	}
	return ioctl(fd, USBDEVFS_SETINTERFACE, &s) < 0 ? fail("set interface") : 0;
}

static int request(int fd, char **argv)
{
	struct usbdevfs_ctrltransfer c = {
		.bRequestType = (uint8_t)strtoul(argv[0], NULL, 0),
		.bRequest = (uint8_t)strtoul(argv[1], NULL, 0),
		.wValue = (uint16_t)strtoul(argv[2], NULL, 0),
		.wIndex = (uint16_t)strtoul(argv[3], NULL, 0),
		.timeout = 5000,
	};
	int error = ioctl(fd, USBDEVFS_CONTROL, &c) < 0 ? errno : 0;

	printf("{\"error\": %d}\n", error);
	return 0;
}

static int scsi(int fd, const char *direction, unsigned int length, const char *hex)
{
	unsigned char command[16], sense[32] = {0}, *data = calloc(1, length + 1);
	struct sg_io_hdr h = {
		.interface_id = 'S',
		.dxfer_direction = length == 0                     ? SG_DXFER_NONE
				   : strcmp(direction, "out") == 0 ? SG_DXFER_TO_DEV
								   : SG_DXFER_FROM_DEV,
		.cmd_len = (unsigned char)(strlen(hex) / 2),
		.mx_sb_len = sizeof(sense),
		.dxfer_len = length,
		.dxferp = data,
		.cmdp = command,
		.sbp = sense,
		.timeout = 20000,
	};

	for (size_t i = 0; i < sizeof(command) && i < strlen(hex) / 2; i++) {
		char digits[3] = {hex[2 * i], hex[2 * i + 1], '\0'};

		command[i] = (unsigned char)strtoul(digits, NULL, 16);
	}
	if (!data || h.cmd_len > sizeof(command) || ioctl(fd, SG_IO, &h) < 0) {
		free(data);
		return fail("SG_IO");
	}
	printf("{\"status\": %d, \"host\": %d, \"key\": %d, \"code\": %d}\n", h.status,
		h.host_status, sense[2] & 0x0f, sense[12]);
	free(data);
	return 0;
}

int main(int argc, char **argv)
{
	const char *what = argc > 2 ? argv[1] : "";
	bool play = strcmp(what, "play") == 0, record = strcmp(what, "record") == 0;
	bool disk = strcmp(what, "scsi") == 0;
	int flags = play ? O_WRONLY : record || disk ? O_RDONLY : O_RDWR;
	int fd = argc > 2 ? open(argv[2], flags | O_NOCTTY) : -1, value;

	if (argc > 2 && fd < 0) {
		return fail(argv[2]);
	}
	if (strcmp(what, "reset") == 0) {
		return ioctl(fd, USBDEVFS_RESET, 0) < 0 ? fail("reset") : 0;
	}
	if (strcmp(what, "control") == 0 && argc == 4) {
		return control(fd, atof(argv[3]));
	}
	if (strcmp(what, "flood") == 0 && argc == 7) {
		return flood(fd, argv + 3);
	}
	if (strcmp(what, "alt") == 0 && argc == 5) {
		return set_alt(fd, atoi(argv[3]), atoi(argv[4]));
	}
	if (strcmp(what, "config") == 0 && argc == 4) {
		value = atoi(argv[3]);
		return ioctl(fd, USBDEVFS_SETCONFIGURATION, &value) < 0 ? fail("config") : 0;
	}
	if ((play || record) && argc == 5) {
		return sound(fd, play, atoi(argv[3]), atof(argv[4]));
	}
	if (strcmp(what, "request") == 0 && argc == 7) {
		return request(fd, argv + 3);
	}
	if (disk && argc == 6) {
		return scsi(fd, argv[3], (unsigned int)atoi(argv[4]), argv[5]);
	}
	if (strcmp(what, "tty") == 0) {
		return tty_raw(fd);
	}
	fprintf(stderr, "usage: usbpoke "
			"reset|control|flood|alt|config|request|scsi|tty|play|record NODE ...\n");
	return 2;
}
