/* SPDX-License-Identifier: MIT
 * gpu list, gpu nodes, gpu show, gpu screenshot, gpu set-display, gpu allow.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include "base/checked.h"
#include "broker/cli/cli.h"
#include "broker/cli/png.h"
#include "broker/cli/table.h"
#include "broker/render-node.h"
#include "protocol/gpu-parent.h"

#define PIXEL_BYTES  4
#define SCANOUTS_MAX 16
#define SIDE_MAX     16384

/* The GPU of the VM that the first argument names, and its object's path. 0 or the exit code. */
static int find_gpu(struct cli *c, json_t **out, char **path_out)
{
	json_t *gpus, *vms, *vm, *gpu;
	size_t i;
	int r = cli_gpus(c, &gpus, &vms);

	if (r != 0) {
		return r;
	}
	vm = cli_find(c, vms, "VM", c->o.args[0], &r);
	if (vm) {
		const char *name = cli_text(vm, "name");

		json_array_foreach(gpus, i, gpu)
		{
			if (strcmp(cli_text(gpu, "vm"), name) == 0) {
				*out = json_incref(gpu);
			}
		}
		if (!*out) {
			r = cli_fail(c, refusal_exit_code(REFUSAL_NOT_FOUND), "not-found",
				"Give it one: [gpu] memory= in its file; see devbroker-vm.conf(5).",
				"vm %s has no GPU", name);
		} else {
			r = sd_bus_path_encode(CLI_PATH_VM, name, path_out) < 0 ? CLI_EXIT_FAILED
										: 0;
		}
	}
	json_decref(vms);
	json_decref(gpus);
	return r;
}

/* "none" is 0. */
static const char *limit(const json_t *g, const char *key, char *out, size_t size)
{
	uint64_t n = cli_number(g, key);

	snprintf(out, size, n ? "%" PRIu64 : "none", n);
	return out;
}

static const char *describe_source(const char *from)
{
	return strcmp(from, "kernel") == 0 ? "kernel: how long the GPU's engines were busy for it"
	       : strcmp(from, "cpu") == 0  ? "cpu: its renderer's CPU time, by the kernel"
					   : "renderer: its own word; this driver counts nothing";
}

static void print_time(const json_t *g)
{
	const json_t *context;
	const char *from = cli_text(g, "time_from");
	char rate[24], contexts[24], resources[24];
	size_t i;

	printf("Share          %s: %.1f %% now, %.1f s in all, waited %.1f s\n",
		cli_text(g, "share"), (double)cli_number(g, "time_permille") / 10,
		(double)cli_number(g, "time_usec") / 1e6,
		(double)cli_number(g, "waited_usec") / 1e6);
	if (from[0]) {
		printf("Time from      %s\n", describe_source(from));
	}
	printf("Frame rate     %" PRIu64 " per second, limit %s; %" PRIu64 " made to wait\n",
		cli_number(g, "frames_per_second"), limit(g, "frame_rate_max", rate, sizeof(rate)),
		cli_number(g, "frames_delayed"));
	printf("Limits         contexts %s, images %s\n",
		limit(g, "contexts_max", contexts, sizeof(contexts)),
		limit(g, "resources_max", resources, sizeof(resources)));
	json_array_foreach(json_object_get(g, "context_times"), i, context)
	{
		text_line(stdout, TEXT_PLAIN, "Context        %" PRIu64 " (%s): %.0f ms",
			cli_number(context, "id"), cli_text(context, "name"),
			(double)cli_number(context, "usec") / 1e3);
	}
}

/* What draws, and loudly if that is the CPU. */
static const char *drawn_by(const json_t *g, char *out, size_t size)
{
	const char *name = cli_text(g, "drawn_by");

	snprintf(out, size, "%s%s", name[0] ? name : "2D, in software",
		parent_draws_in_software(name) ? ", in SOFTWARE" : "");
	return out;
}

static int print_list(struct cli *c, const json_t *gpus)
{
	static const char *const columns[] = {
		"VM", "STATE", "MEMORY", "LIMIT", "IMAGES", "FRAMES", "RENDERER", "NOTE"};
	_cleanup_(table_destroyp) struct table *t = table_create(columns, ARRAY_SIZE(columns));
	const json_t *g;
	char text[32], drawn[160];
	size_t i;

	if (json_array_size(gpus) == 0) {
		printf("No VM has a GPU: [gpu] memory= in its file, devbroker-vm.conf(5).\n");
		return 0;
	}
	json_array_foreach(gpus, i, g)
	{
		if (!t) {
			break;
		}
		table_cell(t, cli_text(g, "vm"));
		table_cell_style(t, cli_text(g, "state"),
			strcmp(cli_text(g, "state"), "connected") == 0 ? TEXT_GOOD : TEXT_PLAIN);
		table_cell_bytes(t, cli_number(g, "memory_bytes"));
		table_cell_bytes(t, cli_number(g, "memory_max_bytes"));
		snprintf(text, sizeof(text), "%" PRIu64, cli_number(g, "resources"));
		table_cell(t, text);
		snprintf(text, sizeof(text), "%" PRIu64, cli_number(g, "frames"));
		table_cell(t, text);
		table_cell(t, drawn_by(g, drawn, sizeof(drawn)));
		table_cell(t, cli_text(g, "detail"));
	}
	return cli_print_table(c, t);
}

int cmd_gpu_list(struct cli *c)
{
	json_t *vms, *gpus;
	int r = cli_gpus(c, &gpus, &vms);

	if (r != 0) {
		return r;
	}
	json_decref(vms);
	if (c->o.json) {
		return cli_print_json(json_pack("{s:o}", "gpus", gpus), "devbroker.gpu-list/1");
	}
	r = print_list(c, gpus);
	json_decref(gpus);
	return r;
}

static json_t *describe_node(const struct render_node *n)
{
	return json_pack("{s:s, s:s, s:s, s:b}", "path", n->path, "driver", n->driver, "bus",
		n->bus, "for_guests", n->tagged);
}

static int print_nodes(struct cli *c, const struct render_node *nodes, int n)
{
	static const char *const columns[] = {"NODE", "DRIVER", "BUS", "FOR GUESTS"};
	_cleanup_(table_destroyp) struct table *t = table_create(columns, ARRAY_SIZE(columns));

	if (n == 0) {
		printf("This host has no render node: what guests draw in 3D is drawn in "
		       "software.\n");
		return 0;
	}
	for (int i = 0; i < n && t; i++) {
		table_cell(t, nodes[i].path);
		table_cell(t, nodes[i].driver);
		table_cell(t, nodes[i].bus);
		table_cell(t, nodes[i].tagged ? "yes" : "no");
	}
	return cli_print_table(c, t);
}

int cmd_gpu_nodes(struct cli *c)
{
	struct render_node nodes[RENDER_NODES_MAX];
	int n = render_nodes_list(nodes);
	json_t *all;

	if (n < 0) {
		return cli_fail(c, CLI_EXIT_FAILED, "failed", "",
			"render nodes can't be listed: %s", strerror(-n));
	}
	if (!c->o.json) {
		return print_nodes(c, nodes, n);
	}
	all = json_array();
	for (int i = 0; i < n; i++) {
		json_array_append_new(all, describe_node(&nodes[i]));
	}
	return cli_print_json(json_pack("{s:o}", "nodes", all), "devbroker.gpu-nodes/1");
}

static void print_3d(const json_t *g)
{
	printf("3D             %" PRIu64 " contexts, %" PRIu64 " refusals, %" PRIu64
	       " contexts poisoned, %" PRIu64 " hangs%s\n",
		cli_number(g, "contexts"), cli_number(g, "refused"), cli_number(g, "poisoned"),
		cli_number(g, "hangs"),
		cli_number(g, "quarantined") ? "; taken away: devbroker gpu allow VM" : "");
}

static void print_gpu(const json_t *g)
{
	char used[32], max[32], more[32], drawn[160];
	uint64_t shown = cli_number(g, "scanouts");

	text_line(stdout, TEXT_PLAIN, "VM             %s", cli_text(g, "vm"));
	text_line(stdout, TEXT_PLAIN, "State          %s", cli_text(g, "state"));
	if (cli_text(g, "detail")[0]) {
		text_line(stdout, TEXT_PLAIN, "Note           %s", cli_text(g, "detail"));
	}
	text_line(stdout, TEXT_PLAIN, "Socket         %s", cli_text(g, "socket"));
	text_line(stdout, TEXT_PLAIN, "Renderer       %s", drawn_by(g, drawn, sizeof(drawn)));
	if (cli_text(g, "drawn_by")[0]) {
		print_3d(g);
	}
	printf("Memory         %s of %s, %" PRIu64 " images; %s uncharged\n",
		text_bytes(cli_number(g, "memory_bytes"), used, sizeof(used)),
		text_bytes(cli_number(g, "memory_max_bytes"), max, sizeof(max)),
		cli_number(g, "resources"),
		text_bytes(cli_number(g, "memory_uncharged_bytes"), more, sizeof(more)));
	if (cli_number(g, "renderer_bytes") > 0) {
		printf("In RAM         %s, the renderer as a whole\n",
			text_bytes(cli_number(g, "renderer_bytes"), used, sizeof(used)));
	}
	if (cli_number(g, "device_memory_bytes") > 0) {
		printf("On the GPU     %s, by the kernel\n",
			text_bytes(cli_number(g, "device_memory_bytes"), used, sizeof(used)));
	}
	print_time(g);
	printf("Shows          ");
	for (unsigned int i = 0; i < SCANOUTS_MAX; i++) {
		if (shown >> i & 1) {
			printf("scanout %u ", i);
		}
	}
	printf("%s\n", shown ? "" : "nothing");
	printf("Display        %s, %" PRIu64 " frames sent, %" PRIu64 " merged\n",
		cli_number(g, "display") ? "connected" : "none", cli_number(g, "frames"),
		cli_number(g, "frames_merged"));
	printf("Commands       %" PRIu64 ", %" PRIu64 " with errors\n", cli_number(g, "commands"),
		cli_number(g, "errors"));
	printf("Renderers      %" PRIu64 " so far\n", cli_number(g, "renderers"));
}

int cmd_gpu_show(struct cli *c)
{
	_cleanup_free_ char *path = NULL;
	json_t *gpu = NULL;
	int r = find_gpu(c, &gpu, &path);

	if (r == 0 && c->o.json) {
		return cli_print_json(json_pack("{s:o}", "gpu", gpu), "devbroker.gpu-show/1");
	}
	if (r == 0) {
		print_gpu(gpu);
	}
	json_decref(gpu);
	return r;
}

/* --scanout, 0 without it. */
static int take_scanout(struct cli *c, uint32_t *out)
{
	const char *text = cli_value(c, "scanout");
	uint64_t n = 0;

	if (text && parse_u64(text, 0, SCANOUTS_MAX - 1, &n) < 0) {
		return cli_fail(c, CLI_EXIT_USAGE, "usage", "", "--scanout takes 0 to 15");
	}
	*out = (uint32_t)n;
	return 0;
}

static int save(struct cli *c, int fd, uint32_t width, uint32_t height, const char *file)
{
	size_t size = (size_t)width * height * PIXEL_BYTES;
	struct stat st;
	void *pixels;
	int r;

	if (width == 0 || height == 0 || width > SIDE_MAX || height > SIDE_MAX ||
		fstat(fd, &st) < 0 || (uint64_t)st.st_size < size) {
		return cli_fail(c, CLI_EXIT_FAILED, "failed", "", "the picture is not whole");
	}
	pixels = mmap(NULL, size, PROT_READ, MAP_SHARED, fd, 0);
	if (pixels == MAP_FAILED) {
		return cli_fail(c, CLI_EXIT_FAILED, "failed", "", "%s", strerror(errno));
	}
	r = png_write(file, pixels, width, height);
	munmap(pixels, size);
	return r == 0 ? 0
		      : cli_fail(c, CLI_EXIT_FAILED, "failed", "", "can't write %s: %s", file,
				strerror(-r));
}

static int shoot(struct cli *c, const char *path, const char *file, uint32_t scanout)
{
	_cleanup_(sd_bus_message_unrefp) sd_bus_message *reply = NULL;
	sd_bus_error error = SD_BUS_ERROR_NULL;
	uint32_t width = 0, height = 0;
	int fd = -1;
	int r = sd_bus_call_method(c->bus, c->destination, path, CLI_IFACE_GPU, "Screenshot",
		&error, &reply, "u", scanout);

	if (r >= 0) {
		r = sd_bus_message_read(reply, "huu", &fd, &width, &height);
	}
	r = r < 0 ? cli_fail_call(c, r, &error) : save(c, fd, width, height, file);
	sd_bus_error_free(&error);
	if (r != 0 || strcmp(file, "-") == 0) {
		return r;
	}
	if (c->o.json) {
		return cli_print_json(json_pack("{s:s, s:i, s:i}", "file", file, "width",
					      (int)width, "height", (int)height),
			"devbroker.gpu-screenshot/1");
	}
	text_line(stdout, TEXT_PLAIN, "%s: %ux%u", file, width, height);
	return 0;
}

int cmd_gpu_screenshot(struct cli *c)
{
	_cleanup_free_ char *path = NULL;
	const char *file = cli_value(c, "output");
	uint32_t scanout;
	json_t *gpu = NULL;
	int r = take_scanout(c, &scanout);

	if (r == 0 && !file) {
		r = cli_fail(c, CLI_EXIT_USAGE, "usage", "Use - for standard output.",
			"gpu screenshot needs -o FILE.png");
	}
	if (r == 0) {
		r = find_gpu(c, &gpu, &path);
	}
	json_decref(gpu);
	return r == 0 ? shoot(c, path, file, scanout) : r;
}

/* "1920x1080", or "default". */
static int parse_mode(const char *text, uint32_t *width, uint32_t *height)
{
	char rest;

	if (strcmp(text, "default") == 0) {
		*width = *height = 0;
		return 0;
	}
	return sscanf(text, "%ux%u%c", width, height, &rest) == 2 && *width > 0 && *height > 0 &&
			       *width <= SIDE_MAX && *height <= SIDE_MAX
		       ? 0
		       : -EINVAL;
}

int cmd_gpu_set_display(struct cli *c)
{
	_cleanup_free_ char *path = NULL;
	sd_bus_error error = SD_BUS_ERROR_NULL;
	uint32_t scanout, width, height;
	json_t *gpu = NULL;
	int r = take_scanout(c, &scanout);

	if (r == 0 && parse_mode(c->o.args[1], &width, &height) < 0) {
		r = cli_fail(c, CLI_EXIT_USAGE, "usage", "As in 1920x1080; default: the VMM's own.",
			"that is no mode: %s", c->o.args[1]);
	}
	if (r == 0) {
		r = find_gpu(c, &gpu, &path);
	}
	json_decref(gpu);
	if (r != 0) {
		return r;
	}
	r = sd_bus_call_method(c->bus, c->destination, path, CLI_IFACE_GPU, "SetDisplay", &error,
		NULL, "uuu", scanout, width, height);
	r = r < 0 ? cli_fail_call(c, r, &error) : 0;
	sd_bus_error_free(&error);
	if (r == 0 && c->o.json) {
		return cli_print_json(json_pack("{s:i, s:i, s:i}", "scanout", (int)scanout, "width",
					      (int)width, "height", (int)height),
			"devbroker.gpu-set-display/1");
	}
	if (r == 0) {
		printf("The guest is told when it asks for its displays the next time: when its "
		       "driver starts,\nor when the VMM's window changes its size. QEMU can't be "
		       "asked to wake it.\n");
	}
	return r;
}

int cmd_gpu_allow(struct cli *c)
{
	_cleanup_free_ char *path = NULL;
	sd_bus_error error = SD_BUS_ERROR_NULL;
	json_t *gpu = NULL;
	int r = find_gpu(c, &gpu, &path);

	json_decref(gpu);
	if (r != 0) {
		return r;
	}
	r = sd_bus_call_method(
		c->bus, c->destination, path, CLI_IFACE_GPU, "Allow", &error, NULL, NULL);
	r = r < 0 ? cli_fail_call(c, r, &error) : 0;
	sd_bus_error_free(&error);
	if (r == 0 && c->o.json) {
		return cli_print_json(
			json_pack("{s:s}", "vm", c->o.args[0]), "devbroker.gpu-allow/1");
	}
	return r;
}
