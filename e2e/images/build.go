package images

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/ambit-mesh/ambit/e2e/cluster/supply"
)

// Config says where things are.
type Config struct {
	// Checkout is the root of the main Go module. Required.
	Checkout string
	// Out is the directory of archives. Empty means Checkout/build/images.
	Out string
	// Bin is the directory of tools that images copy programs from. Empty means Checkout/build/bin.
	Bin string
	// Version is what the product's programs and images call themselves. Empty means Tag.
	Version string
	// Names limits the work to these images. Empty means all.
	Names []string
	// Log receives one line per image. Nil means slog.Default.
	Log *slog.Logger
}

func (c *Config) defaults() error {
	var err error
	// Absolute, since other programs with other working directories get them.
	if c.Checkout, err = filepath.Abs(c.Checkout); err != nil {
		return err
	}
	if c.Out == "" {
		c.Out = filepath.Join(c.Checkout, "build", "images")
	}
	if c.Bin == "" {
		c.Bin = filepath.Join(c.Checkout, "build", "bin")
	}
	c.Version = cmp.Or(c.Version, Tag)
	if c.Log == nil {
		c.Log = slog.Default()
	}
	c.Log = c.Log.With("component", "images")
	for _, dir := range []*string{&c.Out, &c.Bin} {
		if *dir, err = filepath.Abs(*dir); err != nil {
			return err
		}
	}
	return nil
}

// Archive is the path of an image's archive in a directory of archives.
func Archive(dir, name string) string { return filepath.Join(dir, name+".tar") }

// Build makes the archives that are missing or whose inputs changed, and
// returns the paths of all that were asked for.
func Build(ctx context.Context, cfg Config) ([]string, error) {
	if err := cfg.defaults(); err != nil {
		return nil, err
	}
	chosen, err := choose(cfg.Names)
	if err != nil {
		return nil, err
	}
	work := filepath.Join(cfg.Out, "work")
	release, err := supply.Hold(ctx, work, cfg.Log)
	if err != nil {
		return nil, err
	}
	defer release()
	var archives []string
	for _, img := range chosen {
		if img.Version != "" {
			img.Version = cfg.Version
		}
		if err := buildOne(ctx, cfg, work, img); err != nil {
			return nil, fmt.Errorf("image %s: %w", img.Name, err)
		}
		archives = append(archives, Archive(cfg.Out, img.Name))
	}
	return archives, nil
}

func choose(names []string) ([]Image, error) {
	all := All()
	if len(names) == 0 {
		return all, nil
	}
	all = append(all, Extra()...)
	var chosen []Image
	for _, name := range names {
		i := slices.IndexFunc(all, func(img Image) bool { return img.Name == name })
		if i < 0 {
			return nil, fmt.Errorf("there is no image %q; there are %v", name, known(all))
		}
		chosen = append(chosen, all[i])
	}
	return chosen, nil
}

func known(all []Image) []string {
	var names []string
	for _, i := range all {
		names = append(names, i.Name)
	}
	return names
}

func buildOne(ctx context.Context, cfg Config, work string, img Image) error {
	began := time.Now()
	programs, err := buildPrograms(ctx, cfg, work, img)
	if err != nil {
		return err
	}
	key, err := inputKey(img, programs)
	if err != nil {
		return err
	}
	out := Archive(cfg.Out, img.Name)
	stamp := filepath.Join(work, img.Name+".key")
	if have, err := os.ReadFile(stamp); err == nil && string(have) == key && exists(out) {
		cfg.Log.Info("image is up to date", "image", img.Name)
		return nil
	}
	t := newTree(img.Name)
	if err := fill(ctx, cfg, work, img, programs, t); err != nil {
		return err
	}
	if err := writeArchive(t, img, out, work); err != nil {
		return err
	}
	cfg.Log.Info("image built", "image", img.reference(), "took", time.Since(began).Round(10*time.Millisecond))
	return os.WriteFile(stamp, []byte(key), 0o644)
}

// fill collects everything that is in the image. What comes later wins.
func fill(ctx context.Context, cfg Config, work string, img Image, programs map[string]string, t *tree) error {
	if len(img.Debian) > 0 {
		root, err := unpackDebian(ctx, cfg, work, img)
		if err != nil {
			return err
		}
		if err := t.addDir(root); err != nil {
			return err
		}
	}
	for path, file := range programs {
		t.addFile(path, file, 0o755)
	}
	for path, content := range img.Files {
		t.addContent(path, content)
	}
	for _, d := range img.Dirs {
		t.addEmpty(d)
	}
	return nil
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}
