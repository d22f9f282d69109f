package images

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
)

// buildPrograms compiles the Go programs of an image and finds the tools it
// copies. It returns path in the image to file on disk.
func buildPrograms(ctx context.Context, cfg Config, work string, img Image) (map[string]string, error) {
	programs := map[string]string{}
	flags := "-s -w"
	if img.Version != "" {
		flags += " -X main.version=" + img.Version
	}
	args := []string{"build", "-trimpath", "-buildvcs=false", "-ldflags=" + flags}
	if img.Shifted {
		overlay, err := shift(ctx, work)
		if err != nil {
			return nil, err
		}
		args = append(args, "-overlay", overlay)
	}
	for path, pkg := range img.Go {
		out := filepath.Join(work, "go", img.Name, filepath.Base(path))
		cmd := exec.CommandContext(ctx, "go", append(slices.Clone(args), "-o", out, pkg)...)
		cmd.Dir = cfg.Checkout
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
		if said, err := cmd.CombinedOutput(); err != nil {
			return nil, fmt.Errorf("go build %s: %w\n%s", pkg, err, said)
		}
		programs[path] = out
	}
	for path, tool := range img.Bin {
		file := filepath.Join(cfg.Bin, tool)
		if !exists(file) {
			return nil, fmt.Errorf("program %s is missing: run `cluster build`", file)
		}
		programs[path] = file
	}
	return programs, nil
}

// formatVersion changes when this package packs the same inputs differently.
const formatVersion = "1"

// inputKey is a digest of all that goes into an image. Debian packages count by
// name: a new version of one is taken when the archive is built anew.
func inputKey(img Image, programs map[string]string) (string, error) {
	h := sha256.New()
	fmt.Fprintln(h, formatVersion)
	if err := json.NewEncoder(h).Encode(img); err != nil {
		return "", err
	}
	for _, path := range slices.Sorted(maps.Keys(programs)) {
		f, err := os.Open(programs[path])
		if err != nil {
			return "", err
		}
		_, err = io.Copy(h, f)
		f.Close()
		if err != nil {
			return "", err
		}
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}
