package bench

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// proxies are many node proxies, in one child that keeps nothing of what they
// are told: it shall not take the processor from the control plane.
type proxies struct {
	*child
	sync  time.Duration
	bytes int64
}

// synced is what the child prints once all proxies have everything.
type synced struct {
	Took  time.Duration
	Bytes int64
}

// sighting is what it prints when all of them have got a changed resource.
type sighting struct {
	Name string
	// At are when, in nanoseconds since 1970.
	At []int64
}

// connect starts n proxies, each with a token of its own, and waits until they
// have everything.
func (c *control) connect(ctx context.Context, n int) (*proxies, error) {
	tokens, err := c.people.Tokens(ctx, n)
	if err != nil {
		return nil, err
	}
	file := filepath.Join(c.dir, "tokens")
	if err := os.WriteFile(file, []byte(strings.Join(tokens, "\n")), 0o600); err != nil {
		return nil, err
	}
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	kid, err := run(exec.Command(self, "role", "node-proxies", c.istiod.grpc, c.root, file, fmt.Sprint(crowd.Pods+crowd.Services)), "node-proxies")
	if err != nil {
		return nil, err
	}
	p := &proxies{child: kid}
	defer time.AfterFunc(patience, func() { kid.cmd.Process.Kill() }).Stop()
	var s synced
	if err := p.tell(&s); err != nil {
		kid.stop()
		return nil, err
	}
	p.sync, p.bytes = s.Took, s.Bytes
	return p, nil
}

// patience is how long proxies may take to have something.
const patience = time.Minute

// saw waits until all have got a resource, and gives when.
func (p *proxies) saw(name string) ([]int64, error) {
	defer time.AfterFunc(patience, func() { p.cmd.Process.Kill() }).Stop()
	for {
		var s sighting
		if err := p.tell(&s); err != nil {
			return nil, err
		}
		if s.Name == name {
			return s.At, nil
		}
	}
}
