package cluster

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"
)

// systemImages are the archives without which no pod and no name works.
var systemImages = []string{"pause.tar", "coredns.tar"}

// Load puts image archives into the containerd of every running node. An
// archive that a node has already is skipped. Nodes that come or start later
// get the same archives.
func (c *Cluster) Load(ctx context.Context, files ...string) error {
	return c.change(func(s *state) error {
		if err := s.remember(files); err != nil {
			return err
		}
		if err := s.save(c.dir()); err != nil {
			return err
		}
		var g errgroup.Group
		for _, n := range s.Nodes {
			if s.alive(n.Name) {
				g.Go(func() error { return c.loadInto(ctx, s, n, files) })
			} else {
				c.log.Warn("node does not run, images are not loaded", "node", n.Name)
			}
		}
		return g.Wait()
	})
}

// loadSystem gives a node what it cannot do without, and what others have.
func (c *Cluster) loadSystem(ctx context.Context, s *state, n node) error {
	var files []string
	for _, name := range systemImages {
		files = append(files, filepath.Join(s.Images, name))
	}
	for _, file := range s.Loaded {
		if _, err := os.Stat(file); err != nil {
			c.log.Warn("an archive that other nodes have is gone", "node", n.Name, "error", err)
			continue
		}
		files = append(files, file)
	}
	return c.loadInto(ctx, s, n, files)
}

// remember adds archives to those that every node should have.
func (s *state) remember(files []string) error {
	for _, file := range files {
		path, err := filepath.Abs(file)
		if err != nil {
			return err
		}
		if !slices.Contains(s.Loaded, path) {
			s.Loaded = append(s.Loaded, path)
		}
	}
	return nil
}

func (c *Cluster) loadInto(ctx context.Context, s *state, n node, files []string) error {
	err := poll(ctx, 60*time.Second, 50*time.Millisecond, func() error {
		_, err := c.ctr(ctx, s, n, "version")
		return err
	})
	if err != nil {
		return fmt.Errorf("containerd of %s: %w%s", n.Name, err, c.lastWords(n.Name, "containerd"))
	}
	for _, file := range files {
		if err := c.loadOne(ctx, s, n, file); err != nil {
			return fmt.Errorf("load %s into %s: %w", filepath.Base(file), n.Name, err)
		}
	}
	return nil
}

func (c *Cluster) loadOne(ctx context.Context, s *state, n node, file string) error {
	sum, err := digest(file)
	if err != nil {
		return err
	}
	refs, err := archiveRefs(file)
	if err != nil {
		return err
	}
	// One mark per image name, holding what was loaded last under that name: the
	// same name with older content must be loaded again.
	marks := filepath.Join(diskOf(c.dir(), n.Name), "loaded")
	if err := os.MkdirAll(marks, 0o755); err != nil {
		return err
	}
	mark := filepath.Join(marks, strings.ReplaceAll(strings.Join(refs, "+"), "/", "_"))
	if have, err := os.ReadFile(mark); err == nil && string(have) == sum {
		return nil
	} else if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if _, err := c.ctr(ctx, s, n, "images", "import", "--platform", "linux/amd64", file); err != nil {
		return err
	}
	for _, ref := range refs {
		// A collected image could never be pulled again.
		if _, err := c.ctr(ctx, s, n, "images", "label", ref, "io.cri-containerd.pinned=pinned"); err != nil {
			return err
		}
	}
	c.log.Info("image loaded", "node", n.Name, "image", strings.Join(refs, ","))
	return os.WriteFile(mark, []byte(sum), 0o644)
}

// ctr runs containerd's client against a node, by the node's socket as the host
// sees it through the node's first process.
func (c *Cluster) ctr(ctx context.Context, s *state, n node, args ...string) (string, error) {
	socket := fmt.Sprintf("/proc/%d/root%s", s.Procs[n.Name].PID, containerdSocket)
	cmd := exec.CommandContext(ctx, filepath.Join(s.Bin, "ctr"),
		append([]string{"--address", socket, "--namespace", "k8s.io", "--connect-timeout", "2s"}, args...)...)
	out, err := cmd.CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("ctr %s: %w: %s", strings.Join(args, " "), err, bytes.TrimSpace(out))
	}
	return string(out), nil
}

func digest(file string) (string, error) {
	f, err := os.Open(file)
	if err != nil {
		return "", err
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return "", err
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}

// archiveRefs reads the image names out of a docker-archive.
func archiveRefs(file string) ([]string, error) {
	data, err := readMember(file, "manifest.json")
	if err != nil {
		return nil, fmt.Errorf("%s is no docker-archive: %w", file, err)
	}
	var images []struct{ RepoTags []string }
	if err := json.Unmarshal(data, &images); err != nil {
		return nil, fmt.Errorf("%s: manifest.json: %w", file, err)
	}
	var refs []string
	for _, i := range images {
		refs = append(refs, i.RepoTags...)
	}
	if len(refs) == 0 {
		return nil, fmt.Errorf("%s names no image", file)
	}
	return refs, nil
}
