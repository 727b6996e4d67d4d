/* SPDX-License-Identifier: MIT */
#include "broker/vm-options.h"

#include <stdio.h>
#include <string.h>
#include <sys/un.h>

#include "broker/broker.h"
#include "broker/render-node.h"

/* What its GPU is to draw on, and whether there is as much of it. */
static int check_gpu(struct broker *b, const struct vm_options *o,
	char pool_out[static GPU_POOL_NAME_SIZE], struct refusal_text *text)
{
	int r = gpu_limits_check(&o->gpu_limits, text);

	pool_out[0] = '\0';
	if (r != 0) {
		return r;
	}
	if (o->gpu_memory == 0) {
		return o->gpu_limits.share == GPU_SHARE_BEST_EFFORT
			       ? 0
			       : refuse_with(text, REFUSAL_INVALID, "Give its GPU memory, too.",
					 "vm %s: it has no GPU that could have a share", o->name);
	}
	if (o->gpu_virgl != GPU_VIRGL_NO && o->render_node) {
		snprintf(pool_out, GPU_POOL_NAME_SIZE, "%s", o->render_node);
	} else if (o->gpu_virgl != GPU_VIRGL_NO && render_node_tagged(pool_out) < 0) {
		pool_out[0] = '\0';
	}
	return gpu_arbiter_check(b, NULL, pool_out, &o->gpu_limits, text);
}

static int check_options(struct broker *b, const struct vm_options *o, struct refusal_text *text)
{
	if (!o->is_export && !config_name_ok(o->name)) {
		return refuse_with(text, REFUSAL_INVALID,
			"Use letters, digits, '.', '_' and '-', at most 63, a letter or digit "
			"first.",
			"that is no name for a VM");
	}
	if (broker_vm_named(b, o->name)) {
		return refuse(text, REFUSAL_EXISTS, "there is a VM %s already", o->name);
	}
	if (!o->qmp == !o->ways) {
		return refuse_with(text, REFUSAL_INVALID,
			"Give the path of its QMP socket, or a number of slots.",
			"vm %s: it needs one way to be reached", o->name);
	}
	if (o->qmp && (o->qmp[0] != '/' ||
			      strlen(o->qmp) >= sizeof(((struct sockaddr_un *)NULL)->sun_path))) {
		return refuse_with(text, REFUSAL_INVALID,
			"Give the absolute path of a unix socket, at most 107 bytes long.",
			"vm %s: that is no path of a QMP socket", o->name);
	}
	if (o->bus && !config_bus_ok(o->bus)) {
		return refuse_with(text, REFUSAL_INVALID,
			"Give the name of a USB controller's bus in QEMU, as in xhci.0.",
			"vm %s: that is no name of a bus", o->name);
	}
	if (o->gpu_memory > 0) {
		int r = gpu_memory_check(o->name, o->gpu_memory, text);

		if (r != 0) {
			return r;
		}
	}
	if (o->gpu_memory == 0 && o->gpu_virgl != GPU_VIRGL_NO) {
		return refuse_with(text, REFUSAL_INVALID, "Give its GPU memory, too.",
			"vm %s: it has no GPU that could draw in 3D", o->name);
	}
	if (o->gpu_dmabuf && o->gpu_virgl == GPU_VIRGL_NO) {
		return refuse_with(text, REFUSAL_INVALID, "Set virgl=yes or virgl=hardware, too.",
			"vm %s: dmabuf=yes, and its GPU draws in 2D only", o->name);
	}
	if (b->n_vms >= BROKER_VMS_MAX) {
		return refuse(text, REFUSAL_QUOTA, "there are %u VMs, and more are not allowed",
			b->n_vms);
	}
	return 0;
}

int vm_options_check(struct broker *b, const struct vm_options *o,
	char pool_out[static GPU_POOL_NAME_SIZE], struct refusal_text *text)
{
	int r = check_options(b, o, text);

	return r != 0 ? r : check_gpu(b, o, pool_out, text);
}
