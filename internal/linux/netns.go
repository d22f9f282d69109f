package linux

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"runtime"
	"sync"

	"golang.org/x/sys/unix"
)

// NetNSID tells network namespaces apart; it is what nsfs says about the file.
type NetNSID struct {
	Dev, Ino uint64
}

// NetNS is an open network namespace. The namespace lives at least as long as
// it is open.
type NetNS struct {
	file *os.File
	id   NetNSID
}

// home is the process's own namespace, open from the first Do on.
var home = sync.OnceValues(func() (*os.File, error) { return os.Open(threadNetNS) })

// OpenNetNS opens the namespace at path, e.g. /proc/123/ns/net or /run/netns/x.
func OpenNetNS(path string) (*NetNS, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("opening network namespace: %w", err)
	}
	return NetNSFromFile(f)
}

// CurrentNetNS opens the namespace of the caller, the process's own unless
// inside Do.
func CurrentNetNS() (*NetNS, error) {
	// Not /proc/self: that is the first thread, which may be elsewhere.
	return OpenNetNS(threadNetNS)
}

const threadNetNS = "/proc/thread-self/ns/net"

// NetNSFromFile takes over an open namespace file, closing it if it is none.
func NetNSFromFile(f *os.File) (*NetNS, error) {
	id, err := netNSID(f)
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return &NetNS{file: f, id: id}, nil
}

func netNSID(f *os.File) (NetNSID, error) {
	var fs unix.Statfs_t
	if err := unix.Fstatfs(int(f.Fd()), &fs); err != nil {
		return NetNSID{}, fmt.Errorf("reading the kind of %s: %w", f.Name(), err)
	}
	if fs.Type != unix.NSFS_MAGIC {
		return NetNSID{}, fmt.Errorf("%s is not a namespace", f.Name())
	}
	kind, err := unix.IoctlRetInt(int(f.Fd()), unix.NS_GET_NSTYPE)
	if err == nil && kind != unix.CLONE_NEWNET {
		return NetNSID{}, fmt.Errorf("%s is a namespace, but not of networks", f.Name())
	}
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return NetNSID{}, fmt.Errorf("reading the identity of %s: %w", f.Name(), err)
	}
	return NetNSID{Dev: uint64(st.Dev), Ino: st.Ino}, nil
}

// ID is the namespace's identity; equal for two files of one namespace.
func (n *NetNS) ID() NetNSID { return n.id }

// File is the open file, owned by n.
func (n *NetNS) File() *os.File { return n.file }

// Close releases the namespace. It may be called twice.
func (n *NetNS) Close() error {
	if err := n.file.Close(); err != nil && !errors.Is(err, os.ErrClosed) {
		return err
	}
	return nil
}

// Do runs f inside the namespace and waits for it. f must not start goroutines
// that expect to be inside, and must not block for long: it holds a thread.
// What f opens (sockets, netlink, files of /proc/sys/net) stays in the
// namespace after Do has returned.
func (n *NetNS) Do(f func() error) error {
	done := make(chan error, 1)
	// A goroutine of its own: if the way back fails it ends locked, and the
	// runtime destroys the thread rather than let it serve others from inside
	// a pod.
	go func() { done <- n.doLocked(f) }()
	return <-done
}

func (n *NetNS) doLocked(f func() error) error {
	runtime.LockOSThread()
	// Every goroutine but those of Do is at home, and so is this one so far.
	home, err := home()
	if err != nil {
		runtime.UnlockOSThread()
		return fmt.Errorf("opening own network namespace: %w", err)
	}
	if err := unix.Setns(int(n.file.Fd()), unix.CLONE_NEWNET); err != nil {
		runtime.UnlockOSThread()
		return fmt.Errorf("entering network namespace: %w", err)
	}
	err = f()
	if back := unix.Setns(int(home.Fd()), unix.CLONE_NEWNET); back != nil {
		return errors.Join(err, fmt.Errorf("leaving network namespace: %w", back))
	}
	runtime.UnlockOSThread()
	return err
}

// HasLinks says whether the namespace has any interface but its loopback. A
// pod's loses them when its sandbox is torn down.
func (n *NetNS) HasLinks() (bool, error) {
	found := false
	err := n.Do(func() error {
		links, err := net.Interfaces()
		if err != nil {
			return fmt.Errorf("listing interfaces: %w", err)
		}
		for _, l := range links {
			found = found || l.Flags&net.FlagLoopback == 0
		}
		return nil
	})
	return found, err
}

// Addresses are those of the namespace's interfaces, lo's included.
func (n *NetNS) Addresses() (own map[netip.Addr]bool, err error) {
	own = map[netip.Addr]bool{}
	err = n.Do(func() error {
		all, err := net.InterfaceAddrs()
		if err != nil {
			return fmt.Errorf("listing addresses: %w", err)
		}
		for _, a := range all {
			if ip, ok := a.(*net.IPNet); ok {
				if addr, ok := netip.AddrFromSlice(ip.IP); ok {
					own[addr.Unmap()] = true
				}
			}
		}
		return nil
	})
	return own, err
}
