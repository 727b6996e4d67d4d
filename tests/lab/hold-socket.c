/* SPDX-License-Identifier: MIT
 * hold-socket PATH: connects to a unix socket and keeps it until its own stdin ends or the other
 * side goes. Stands for a VMM that has nothing to say.
 */
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

int main(int argc, char **argv)
{
	struct sockaddr_un addr = {.sun_family = AF_UNIX};
	struct pollfd fds[2] = {{.fd = STDIN_FILENO, .events = POLLIN}, {.events = POLLIN}};

	if (argc != 2 || strlen(argv[1]) >= sizeof(addr.sun_path)) {
		fprintf(stderr, "hold-socket PATH\n");
		return 2;
	}
	memcpy(addr.sun_path, argv[1], strlen(argv[1]) + 1);
	fds[1].fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (fds[1].fd < 0 || connect(fds[1].fd, (const struct sockaddr *)&addr, sizeof(addr)) < 0) {
		perror("hold-socket");
		return 1;
	}
	return poll(fds, 2, -1) < 0;
}
