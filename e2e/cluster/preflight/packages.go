package preflight

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
)

// needed maps a program to the Debian package that has it.
var needed = []struct{ program, pkg string }{
	{"runc", "runc"},
	{"nft", "nftables"},
	{"ip", "iproute2"},
	{"conntrack", "conntrack"},
	{"tcpdump", "tcpdump"},
	{"nsenter", "util-linux"},
	{"mount", "mount"},
	{"dpkg-deb", "dpkg"},
	{"gcc", "gcc"},
	{"git", "git"},
	{"make", "make"},
}

// missing lists the packages of programs that are not in the PATH. A header
// of libc stands for what gcc needs to compile anything.
func missing() []string {
	var want []string
	for _, n := range needed {
		if _, err := exec.LookPath(n.program); err != nil && !slices.Contains(want, n.pkg) {
			want = append(want, n.pkg)
		}
	}
	if _, err := os.Stat("/usr/include/stdio.h"); err != nil {
		want = append(want, "libc6-dev")
	}
	return want
}

func packages(ctx context.Context, cfg Config) Finding {
	const what = "system packages"
	want := missing()
	if len(want) == 0 {
		return ok(what, "runc, nftables and the rest are there")
	}
	advice := "apt-get install -y --no-install-recommends " + strings.Join(want, " ")
	if !cfg.Install || os.Geteuid() != 0 {
		return fail(what, "missing: run `%s` as root", advice)
	}
	cfg.Log.Info("installing packages", "packages", strings.Join(want, " "))
	if err := install(ctx, want); err != nil {
		return fail(what, "%v; run `%s` by hand", err, advice)
	}
	if left := missing(); len(left) > 0 {
		return fail(what, "still missing after installation: %s", strings.Join(left, " "))
	}
	return ok(what, "installed %s", strings.Join(want, " "))
}

func install(ctx context.Context, want []string) error {
	if _, err := exec.LookPath("apt-get"); err != nil {
		return fmt.Errorf("there is no apt-get: install the programs of %s with your system's own means", strings.Join(want, ", "))
	}
	args := append([]string{"install", "-y", "-q", "--no-install-recommends", "-o", "Dpkg::Options::=--force-confold"}, want...)
	err := apt(ctx, args...)
	if err == nil {
		return nil
	}
	// The lists may be absent or old.
	if err := apt(ctx, "update", "-q"); err != nil {
		return err
	}
	return apt(ctx, args...)
}

// apt runs apt-get so that it never asks, never restarts services and waits for
// another apt that is at work.
func apt(ctx context.Context, args ...string) error {
	cmd := exec.CommandContext(ctx, "apt-get", append([]string{"-o", "DPkg::Lock::Timeout=120"}, args...)...)
	cmd.Env = append(os.Environ(), "DEBIAN_FRONTEND=noninteractive", "NEEDRESTART_MODE=l", "LC_ALL=C")
	out, err := cmd.CombinedOutput()
	if err != nil {
		lines := bytes.Split(bytes.TrimSpace(out), []byte("\n"))
		return fmt.Errorf("apt-get %s: %w: %s", args[0], err, bytes.Join(lines[max(0, len(lines)-3):], []byte("; ")))
	}
	return nil
}
