/* SPDX-License-Identifier: MIT
 * tcp-run ADDRESS PORT PROGRAM ARGUMENT…: connects, and becomes the program with the connection as
 * its fd 3. For programs that are measured by hand and take a connected stream.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

int main(int argc, char **argv)
{
	struct sockaddr_in address = {.sin_family = AF_INET};
	int fd;

	if (argc < 4 || inet_pton(AF_INET, argv[1], &address.sin_addr) != 1) {
		fprintf(stderr, "usage: tcp-run ADDRESS PORT PROGRAM [ARGUMENT…]\n");
		return 2;
	}
	address.sin_port = htons((uint16_t)atoi(argv[2]));
	fd = socket(AF_INET, SOCK_STREAM, 0);
	if (fd < 0 || connect(fd, (const struct sockaddr *)&address, sizeof(address)) < 0 ||
		(fd != 3 && (dup2(fd, 3) < 0 || close(fd) < 0))) {
		fprintf(stderr, "tcp-run: %s:%s: %s\n", argv[1], argv[2], strerror(errno));
		return 1;
	}
	execvp(argv[3], argv + 3);
	fprintf(stderr, "tcp-run: %s: %s\n", argv[3], strerror(errno));
	return 127;
}
