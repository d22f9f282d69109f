package bench

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime/debug"
	"runtime/pprof"
	"strings"
	"sync"
	"syscall"

	"github.com/ambit-mesh/ambit/internal/linux"
)

// role is what a child process does until ctx ends. It calls ready once.
type role func(ctx context.Context, args []string, ready func()) error

var roles = map[string]role{
	"app":       runApp,
	"plain-out": runPlainOut,
	"plain-in":  runPlainIn,
	"tls-out":   runTLSOut,
	"tls-in":    runTLSIn,
	"ztunnel":   runZtunnel,

	"http-backend":   runBackend,
	"http-load":      runLoad,
	"http-hold":      runHold,
	"waypoint-plain": runWaypointPlain,
	"waypoint":       runWaypoint,

	"tunnel-out": runTunnelOut,
	"tunnel-in":  runTunnelIn,
	"cold-out":   runColdOut,

	"quic-out":     runQUICOut,
	"quic-in":      runQUICIn,
	"datagram-app": runDatagramApp,

	"node-proxies": runNodeProxies,
	"node-ztunnel": runNodeZtunnel,
}

// Child runs the role that the arguments name, if they name one. It ends when
// its standard input does, and so with its parent. On SIGUSR1 it gives what
// memory it can back to the kernel.
func Child(args []string) (bool, error) {
	if len(args) < 2 || args[0] != "role" {
		return false, nil
	}
	run := roles[args[1]]
	if run == nil {
		return true, fmt.Errorf("no role %q", args[1])
	}
	if _, err := linux.RaiseOpenFiles(); err != nil {
		return true, err
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	go func() { io.Copy(io.Discard, os.Stdin); cancel() }() // ends with the process
	usr := make(chan os.Signal, 1)
	signal.Notify(usr, syscall.SIGUSR1)
	go func() {
		for range usr {
			debug.FreeOSMemory()
			fmt.Println("freed")
		}
	}()
	stop, err := profile(strings.Join(args[1:min(len(args), 3)], "-"))
	if err != nil {
		return true, err
	}
	defer stop()
	return true, run(ctx, args[2:], func() { fmt.Println("ready") })
}

// ProfileVariable names the directory into which children write processor
// profiles, if it is set.
const ProfileVariable = "AMBIT_BENCH_PROFILE"

func profile(name string) (stop func(), err error) {
	dir := os.Getenv(ProfileVariable)
	if dir == "" {
		return func() {}, nil
	}
	f, err := os.Create(filepath.Join(dir, strings.ReplaceAll(name, "/", "_")+".pprof"))
	if err != nil {
		return nil, err
	}
	if err := pprof.StartCPUProfile(f); err != nil {
		return nil, err
	}
	return func() { pprof.StopCPUProfile(); f.Close() }, nil
}

// child is a process of a role.
type child struct {
	name  string
	cmd   *exec.Cmd
	stdin io.Closer
	out   *bufio.Reader
	once  sync.Once
}

// start runs a role in a namespace and waits until it is ready.
func start(ns *linux.NetNS, args ...string) (*child, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	cmd := exec.Command(self, append([]string{"role"}, args...)...)
	var c *child
	err = ns.Do(func() (err error) {
		c, err = run(cmd, strings.Join(args, " "))
		return err
	})
	return c, err
}

func (c *child) expect(word string) error {
	line, err := c.out.ReadString('\n')
	if err != nil {
		return errors.New("it ended")
	}
	if strings.TrimSpace(line) != word {
		return fmt.Errorf("it said %q", line)
	}
	return nil
}

// stop ends the child and waits for it. What it still says is passed over: it
// could wait for being heard.
func (c *child) stop() {
	c.once.Do(func() {
		c.stdin.Close()
		io.Copy(io.Discard, c.out)
		c.cmd.Wait()
	})
}

// resident is the child's memory after it has given back what it can.
func (c *child) resident() (float64, error) {
	if err := c.cmd.Process.Signal(syscall.SIGUSR1); err != nil {
		return 0, err
	}
	if err := c.expect("freed"); err != nil {
		return 0, err
	}
	return memory(c.cmd.Process.Pid)
}
