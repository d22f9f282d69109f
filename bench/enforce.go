package bench

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/ambit-mesh/ambit/cni/handoff"
	"github.com/ambit-mesh/ambit/cni/rules"
	"github.com/ambit-mesh/ambit/internal/controlplane"
	"github.com/ambit-mesh/ambit/internal/linux"
	"github.com/ambit-mesh/ambit/internal/zds"
	"github.com/ambit-mesh/ambit/ztunnel"
)

const (
	enforceName = "enforce.seconds"
	// guarded is the namespace of the two pods that do run.
	guarded = "guarded"
	// enforceGoal is issue 4's, in seconds.
	enforceGoal = 1
)

// enforcement measures how long a policy takes from the request that writes it
// until the real ztunnel of a node refuses new connections and has cut the open
// one, with everything real in between and the whole crowd beside it.
func (c *control) enforcement(ctx context.Context) (Row, error) {
	n, err := newNode(ctx, c)
	if err != nil {
		return Row{}, err
	}
	defer n.close()
	var refused, cut, opened []float64
	for round := range 3 * c.cfg.Rounds {
		c.cfg.say("%s: round %d of %d", enforceName, round+1, 3*c.cfg.Rounds)
		r, err := n.enforce(ctx, c)
		if err != nil {
			return Row{}, err
		}
		refused, cut, opened = append(refused, r.refused), append(cut, r.cut), append(opened, r.opened)
	}
	slices.Sort(refused)
	slices.Sort(cut)
	row := cpRow(enforceName, "s", median(refused), len(refused))
	row.Goal = enforceGoal
	row.Note = fmt.Sprintf("policy written → new connections refused, %d pods in the mesh; at most %.3f; the open connection cut after %.3f, at most %.3f; policy deleted → connections made after %.3f",
		crowd.Pods, refused[len(refused)-1], median(cut), cut[len(cut)-1], median(opened))
	return row, nil
}

// node is two pods and the real ztunnel that serves both.
type node struct {
	pods     *pair
	path     *path
	children []*child
	stop     func()
}

func newNode(ctx context.Context, c *control) (n *node, err error) {
	n = &node{stop: func() {}}
	defer func() {
		if err != nil {
			n.close()
		}
	}()
	if n.pods, err = newPair("10.251.250"); err != nil {
		return n, err
	}
	if err := n.pods.enrol(rules.Spec{}); err != nil {
		return n, err
	}
	n.path = &path{"one ztunnel", n.pods.client, netip.AddrPortFrom(n.pods.serverAddr, appPort)}
	app, err := start(n.pods.server, "app", n.path.to.String())
	if err != nil {
		return n, err
	}
	n.children = append(n.children, app)
	for name, at := range map[string]netip.Addr{"client": n.pods.clientAddr, "server": n.pods.serverAddr} {
		if err := c.people.Place(ctx, guarded, name, at.String()); err != nil {
			return n, err
		}
	}
	if err := n.serve(ctx, c); err != nil {
		return n, err
	}
	return n, n.becomes(ctx, true)
}

// serve starts the ztunnel, and stands for the node's agent.
func (n *node) serve(ctx context.Context, c *control) error {
	token, err := c.people.Proxy(ctx, "ztunnel-bench", "10.180.0.0")
	if err != nil {
		return err
	}
	tokenFile, socket := filepath.Join(c.dir, "token"), filepath.Join(c.dir, "zds.sock")
	if err := os.WriteFile(tokenFile, []byte(token), 0o600); err != nil {
		return err
	}
	l, err := zds.Listen(socket)
	if err != nil {
		return err
	}
	told := handoff.New(slog.New(slog.DiscardHandler))
	serving, cancel := context.WithCancel(ctx)
	var running sync.WaitGroup
	running.Go(func() { told.Serve(serving, l) })
	n.stop = func() { cancel(); running.Wait(); told.Close() }
	for name, ns := range map[string]*linux.NetNS{"client": n.pods.client, "server": n.pods.server} {
		if err := told.Put(zds.Pod{UID: "Kubernetes//Pod/" + guarded + "/" + name, Namespace: guarded, Name: name, ServiceAccount: name}, ns); err != nil {
			return err
		}
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	z, err := run(exec.Command(self, "role", "node-ztunnel", c.istiod.grpc, c.root, tokenFile, socket), "node-ztunnel")
	if err != nil {
		return err
	}
	n.children = append(n.children, z)
	return nil
}

func (n *node) close() {
	n.stop()
	for _, c := range slices.Backward(n.children) {
		c.stop()
	}
	if n.pods != nil {
		n.pods.close()
	}
}

// becomes waits until connections are made, or are refused.
func (n *node) becomes(ctx context.Context, open bool) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for {
		err := once(n.path)
		if (err == nil) == open {
			return nil
		}
		select {
		case <-time.After(time.Millisecond):
		case <-ctx.Done():
			return errors.Join(fmt.Errorf("connections do not come to be %s", map[bool]string{true: "made", false: "refused"}[open]), err)
		}
	}
}

// enforced are the seconds that one policy took.
type enforced struct{ refused, cut, opened float64 }

func (n *node) enforce(ctx context.Context, c *control) (e enforced, err error) {
	held, err := n.path.ask(askEcho)
	if err != nil {
		return e, err
	}
	defer held.Close()
	begin := time.Now()
	cut := make(chan float64, 1)
	go func() { cut <- ended(held, begin) }() // ends with the connection, at the latest when it is closed here
	if err := c.people.Deny(ctx, guarded); err != nil {
		return e, err
	}
	if err := n.becomes(ctx, false); err != nil {
		return e, err
	}
	e.refused = time.Since(begin).Seconds()
	select {
	case e.cut = <-cut:
	case <-time.After(patience):
		return e, errors.New("the open connection was not cut")
	}
	begin = time.Now()
	if err := c.people.Allow(ctx, guarded); err != nil {
		return e, err
	}
	err = n.becomes(ctx, true)
	e.opened = time.Since(begin).Seconds()
	return e, err
}

// ended waits until the other side ends a connection on which it says nothing.
func ended(c *net.TCPConn, begin time.Time) float64 {
	io.Copy(io.Discard, c) // how it ends does not matter
	return time.Since(begin).Seconds()
}

// runNodeZtunnel is the real ztunnel of a node: node-ztunnel ADDRESS ROOTFILE
// TOKENFILE SOCKET.
func runNodeZtunnel(ctx context.Context, args []string, ready func()) error {
	ports, err := freePorts(3)
	if err != nil {
		return err
	}
	at := controlplane.Endpoint{Address: args[0], ServerName: "istiod.istio-system.svc", RootFile: args[1], TokenFile: args[2]}
	ready()
	return ztunnel.Run(ctx, ztunnel.Config{
		Self:         ztunnel.Self{Name: "ztunnel-bench", Namespace: "istio-system", ServiceAccount: "ztunnel", Node: "node-000", IP: "10.180.0.0"},
		ControlPlane: at, CA: at, AgentSocket: args[3], DrainDeadline: time.Second,
		AdminPort: ports[0], MetricsPort: ports[1], ReadyPort: ports[2],
		// Refused connections are what is wanted here: no record of each.
		Logger: slog.New(slog.DiscardHandler),
	})
}
