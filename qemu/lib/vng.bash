# Sourced by qemu/guest: how virtme-ng boots the guest. Sets `boot`, from the options of qemu/guest.
# shellcheck shell=bash disable=SC2034,SC2154

boot=("$TOOLS/venv/bin/virtme-run" --kimg "$IMAGE" --mods none --force-9p --memory "${memory:-2G}"
	-a root=/dev/root -a oops=panic -a printk.devkmsg=on -a loglevel=7 "${append[@]}")
# On a machine that is busy, an emulated timer may be too late for the kernel's check of it, which
# panics.
boot+=(-a no_timer_check)
while read -r folder; do boot+=(--overlay-rwdir "$folder"); done < <(overlays)

# Whether /dev/kvm works: one that is there may still not. Boots once to know, and remembers it
# until this machine reboots.
kvm_works() {
	local known works=no
	known=$CACHE/kvm-$(</proc/sys/kernel/random/boot_id)
	if [[ ! -w /dev/kvm ]]; then return 1; fi
	if [[ ! -e $known ]]; then
		rm -f "$CACHE"/kvm-*
		if timeout 60 "${boot[@]}" --script-sh true </dev/null >"$LOGS/kvm.log" 2>&1; then
			works=yes
		else
			say "KVM does not boot the guest ($LOGS/kvm.log): it is emulated until this machine reboots"
			say "    To try again: rm $known"
		fi
		echo $works >"$known"
	fi
	[[ $(<"$known") == yes ]]
}
if [[ $icount ]] || ! kvm_works; then boot+=(--disable-kvm); fi

qemu=()
if [[ $icount ]]; then
	boot+=(--cpus 1)
	qemu+=(-icount "shift=0,sleep=off")
else
	boot+=(--cpus 2)
fi
if [[ $shell ]]; then
	boot+=(-a quiet --pwd)
	return
fi

# virtme-ng's own channel for standard error is also the console's, and its exit status may tell
# that it failed itself: what the command has of both comes through ports of our own.
port() { # NAME
	qemu+=(-chardev "file,id=nextid.$1,path=$run/$1"
		-device "virtserialport,name=nextid.$1,chardev=nextid.$1")
}
qemu+=(-device virtio-serial-pci)
port stderr
port status
boot+=(--show-boot-console
	--script-sh "$(printf '%q ' "$TOP/qemu/init/vng" "$run")" --qemu-opts "${qemu[@]}")
