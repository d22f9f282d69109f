package images

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
)

// unpackDebian downloads packages with all they depend on and unpacks them into
// a directory. Nothing is installed: no script of any package runs, and the
// host's own list of packages is neither read nor changed.
func unpackDebian(ctx context.Context, cfg Config, work string, img Image) (root string, err error) {
	if _, err := exec.LookPath("apt-get"); err != nil {
		return "", errors.New("this image is made of Debian packages and needs apt-get; run on Debian or a relative of it")
	}
	apt, err := newApt(filepath.Join(work, "apt"))
	if err != nil {
		return "", err
	}
	files, err := apt.download(ctx, img.Debian)
	if errors.Is(err, errStale) {
		cfg.Log.Info("package lists are missing or old, updating them")
		if err := apt.update(ctx); err != nil {
			return "", err
		}
		files, err = apt.download(ctx, img.Debian)
	}
	if err != nil {
		return "", err
	}
	root = filepath.Join(work, "root", img.Name)
	if err := os.RemoveAll(root); err != nil {
		return "", err
	}
	if err := os.MkdirAll(root, 0o755); err != nil {
		return "", err
	}
	for _, file := range files {
		if slices.Contains(img.Without, packageName(file)) {
			continue
		}
		if said, err := exec.CommandContext(ctx, "dpkg-deb", "--extract", file, root).CombinedOutput(); err != nil {
			return "", fmt.Errorf("unpack %s: %w: %s", filepath.Base(file), err, said)
		}
	}
	return root, nil
}

// packageName reads NAME out of NAME_VERSION_ARCH.deb.
func packageName(file string) string {
	name, _, _ := strings.Cut(filepath.Base(file), "_")
	return name
}

// apt is apt-get with a memory of its own: to it nothing is installed, so it
// resolves the whole closure of dependencies.
type apt struct{ dir string }

// errStale says that apt's lists do not know a package or name a version that is gone.
var errStale = errors.New("package lists are stale")

func newApt(dir string) (*apt, error) {
	if err := os.MkdirAll(filepath.Join(dir, "archives", "partial"), 0o755); err != nil {
		return nil, err
	}
	return &apt{dir: dir}, os.WriteFile(filepath.Join(dir, "status"), nil, 0o644)
}

func (a *apt) run(ctx context.Context, args ...string) (string, error) {
	all := append([]string{
		"-q", "-y", "--no-install-recommends",
		"-o", "Dir::State::status=" + filepath.Join(a.dir, "status"),
		"-o", "Dir::Cache::archives=" + filepath.Join(a.dir, "archives"),
		"-o", "APT::Sandbox::User=root",
	}, args...)
	cmd := exec.CommandContext(ctx, "apt-get", all...)
	cmd.Env = append(os.Environ(), "DEBIAN_FRONTEND=noninteractive", "LC_ALL=C")
	out, err := cmd.CombinedOutput()
	return string(out), err
}

func (a *apt) update(ctx context.Context) error {
	if out, err := a.run(ctx, "update"); err != nil {
		return fmt.Errorf("apt-get update: %w: %s", err, out)
	}
	return nil
}

// download fetches the closure of packages and returns its files.
func (a *apt) download(ctx context.Context, packages []string) ([]string, error) {
	plan, err := a.run(ctx, append([]string{"install", "--simulate"}, packages...)...)
	if err != nil {
		if strings.Contains(plan, "Unable to locate package") || strings.Contains(plan, "no installation candidate") {
			return nil, fmt.Errorf("%w: %s", errStale, strings.TrimSpace(plan))
		}
		return nil, fmt.Errorf("resolve packages: %w: %s", err, plan)
	}
	if out, err := a.run(ctx, append([]string{"install", "--download-only"}, packages...)...); err != nil {
		if strings.Contains(out, "404") || strings.Contains(out, "Unable to fetch") {
			return nil, fmt.Errorf("%w: %s", errStale, strings.TrimSpace(out))
		}
		return nil, fmt.Errorf("download packages: %w: %s", err, out)
	}
	return a.files(planned(plan))
}

// planned reads package names out of apt's simulation: "Inst NAME (VERSION ...".
func planned(plan string) []string {
	var names []string
	for line := range strings.Lines(plan) {
		f := strings.Fields(line)
		if len(f) >= 3 && f[0] == "Inst" {
			name, _, _ := strings.Cut(f[1], ":")
			names = append(names, name+"_"+strings.TrimPrefix(f[2], "("))
		}
	}
	slices.Sort(names)
	return names
}

// files finds the archive of each package and version. apt writes a colon of a
// version as %3a.
func (a *apt) files(versions []string) ([]string, error) {
	dir := filepath.Join(a.dir, "archives")
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	var files []string
	for _, v := range versions {
		i := slices.IndexFunc(entries, func(e fs.DirEntry) bool {
			return strings.HasPrefix(strings.ReplaceAll(e.Name(), "%3a", ":"), v+"_")
		})
		if i < 0 {
			return nil, fmt.Errorf("apt-get has not downloaded %s", v)
		}
		files = append(files, filepath.Join(dir, entries[i].Name()))
	}
	return files, nil
}

// Unpack puts the Debian packages of an image of the table into a directory of
// their own, with the image's files and directories, and returns it: for who
// runs a program of them without a container.
func Unpack(ctx context.Context, cfg Config, name string) (root string, err error) {
	if err := cfg.defaults(); err != nil {
		return "", err
	}
	chosen, err := choose([]string{name})
	if err != nil {
		return "", err
	}
	work := filepath.Join(cfg.Out, "unpacked")
	root = filepath.Join(work, "root", name)
	whole := root + ".complete"
	if _, err := os.Stat(whole); err == nil {
		return root, nil
	}
	if err := os.MkdirAll(work, 0o755); err != nil {
		return "", err
	}
	if root, err = unpackDebian(ctx, cfg, work, chosen[0]); err != nil {
		return "", err
	}
	for _, d := range chosen[0].Dirs {
		if err := os.MkdirAll(filepath.Join(root, d.Path), 0o755); err != nil {
			return "", err
		}
	}
	for path, text := range chosen[0].Files {
		if err := os.MkdirAll(filepath.Dir(filepath.Join(root, path)), 0o755); err != nil {
			return "", err
		}
		if err := os.WriteFile(filepath.Join(root, path), []byte(text), 0o644); err != nil {
			return "", err
		}
	}
	return root, os.WriteFile(whole, nil, 0o644)
}
