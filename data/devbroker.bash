# SPDX-License-Identifier: MIT
# bash completion for devbroker: commands from its help, names from the broker.

_devbroker_names() {
	devbroker list --json 2>/dev/null | sed -n 's/^      "name": "\(.*\)",$/\1/p'
}

_devbroker_vms() {
	devbroker vm list --json 2>/dev/null | sed -n 's/^      "name": "\(.*\)",$/\1/p'
}

_devbroker() {
	local cur=${COMP_WORDS[COMP_CWORD]} words=() i
	for ((i = 1; i < COMP_CWORD; i++)); do
		case ${COMP_WORDS[i]} in
		-* | :) ;;
		*) words+=("${COMP_WORDS[i]}") ;;
		esac
	done
	case $cur in
	-*)
		mapfile -t COMPREPLY < <(compgen -W "--json --run-dir --socket --help --version --wait --no-wait --timeout
			--remember --keep-drivers-off --last-input --interfaces --allow-firmware --qmp --bus --name --read-only --cdrom --allow-remote --speed --serial
			--slots --slot-group --listen --keep --headers-only --gpu-memory --gpu-virgl --gpu-share --gpu-frame-rate --gpu-contexts --gpu-resources -o --output --once --delay --order --scanout" -- "$cur")
		return
		;;
	esac
	case ${words[0]-} in
	"") mapfile -t COMPREPLY < <(compgen -W "status list show attach detach export capture remembered forget explain log policy watch stats top metrics vm disk gpu quota help" -- "$cur") ;;
	vm)
		case ${words[1]-} in
		"") mapfile -t COMPREPLY < <(compgen -W "list show add remove" -- "$cur") ;;
		show | remove) mapfile -t COMPREPLY < <(compgen -W "$(_devbroker_vms)" -- "$cur") ;;
		esac
		;;
	gpu)
		case ${words[1]-} in
		"") mapfile -t COMPREPLY < <(compgen -W "list nodes show screenshot set-display allow" -- "$cur") ;;
		show | screenshot | set-display | allow)
			[ -n "${words[2]-}" ] || mapfile -t COMPREPLY < <(compgen -W "$(_devbroker_vms)" -- "$cur")
			;;
		esac
		;;
	quota)
		case ${#words[@]} in
		1) mapfile -t COMPREPLY < <(compgen -W "show set" -- "$cur") ;;
		2) mapfile -t COMPREPLY < <(compgen -W "$(_devbroker_vms)" -- "$cur") ;;
		3) mapfile -t COMPREPLY < <(compgen -W "usb.devices= usb.bandwidth= usb.transfers-per-second= usb.bytes-in-flight= usb.transfers-in-flight= gpu.share= gpu.frame-rate= gpu.memory= gpu.contexts= gpu.resources=" -- "$cur") ;;
		esac
		;;
	policy) [ -n "${words[1]-}" ] || mapfile -t COMPREPLY < <(compgen -W "check test reload" -- "$cur") ;;
	disk)
		case ${words[1]-} in
		"") mapfile -t COMPREPLY < <(compgen -W "list add remove" -- "$cur") ;;
		add) mapfile -t COMPREPLY < <(compgen -f -- "$cur") ;;
		remove) mapfile -t COMPREPLY < <(compgen -W "$(_devbroker_names | sed 's/^disk://')" -- "$cur") ;;
		esac
		;;
	attach)
		case ${#words[@]} in
		1) mapfile -t COMPREPLY < <(compgen -W "$(_devbroker_names | sed 's/^[a-z]*://')" -- "$cur") ;;
		2) mapfile -t COMPREPLY < <(compgen -W "$(_devbroker_vms)" -- "$cur") ;;
		esac
		;;
	show | detach | explain | export | capture) mapfile -t COMPREPLY < <(compgen -W "$(_devbroker_names | sed 's/^[a-z]*://')" -- "$cur") ;;
	esac
}

complete -F _devbroker devbroker
