package kept

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/ambit-mesh/ambit/internal/certs"
	"github.com/ambit-mesh/ambit/internal/xds"
)

// Config says what a Keeper keeps, and where.
type Config struct {
	// Dir is made if it is not there. Empty: nothing is kept.
	Dir string
	// Cluster, TrustDomain and Node are written down and must be the same when
	// it is read.
	Cluster, TrustDomain, Node string
	// MaxAge is how long ago the control plane may have confirmed a state that
	// is used. Zero: 24 h, after which no certificate of that time is valid.
	MaxAge time.Duration
	// MaxBytes bounds each file; what is larger is not kept. Zero: 64 MiB.
	MaxBytes int64
	// Pause is the least time between two writings of one file; writing takes at
	// most a fiftieth of the time. Zero: 2 s.
	Pause time.Duration
	// Confirm is how often it is written down that the control plane still says
	// the same. Zero: 15 s.
	Confirm time.Duration
	// Logger is required.
	Logger *slog.Logger
}

// Source is what a running ztunnel has.
type Source struct {
	// Connected says whether the control plane would have told of a change.
	Connected func() bool
	// Certificates are those to keep, and Told what was told of their roots.
	Certificates func() []*certs.Certificate
	Told         func() *certs.KeptTrust
}

// Keeper keeps the state and the certificates of one ztunnel.
type Keeper struct {
	config Config
	log    *slog.Logger
	wake   chan struct{}

	writing sync.Mutex // held while files are written; taken before mu

	mu       sync.Mutex
	off      error // why nothing is kept
	left     bool  // its successor writes
	known    known
	files    map[string]*file
	restored *Restored
}

// file is what is known of one file, under Keeper.mu.
type file struct {
	dirty                     bool
	sum                       sum // of what was written or read last
	writes, failures, refused uint64
	bytes                     int64
	written                   time.Time
	complaint                 string // of the last refusal or failure
}

// The files.
const (
	stateFile     = "state"
	confirmedFile = "confirmed"
	keysFile      = "certificates"
)

// Open makes a Keeper. One that can keep nothing says so in the log and does
// nothing: a ztunnel serves without it.
func Open(c Config) *Keeper {
	c.MaxAge = cmp.Or(c.MaxAge, 24*time.Hour)
	c.MaxBytes = cmp.Or(c.MaxBytes, 64<<20)
	c.Pause = cmp.Or(c.Pause, 2*time.Second)
	c.Confirm = cmp.Or(c.Confirm, 15*time.Second)
	k := &Keeper{
		config: c, log: c.Logger.With("component", "kept"), wake: make(chan struct{}, 1), known: newKnown(),
		files: map[string]*file{stateFile: {}, confirmedFile: {}, keysFile: {}},
	}
	if c.Dir == "" {
		k.off = errors.New("no directory is configured")
		return k
	}
	if k.off = prepare(c.Dir); k.off != nil {
		k.log.Warn("nothing is kept for the next start", "error", k.off)
	} else if !inMemory(c.Dir) {
		k.log.Warn("certificates are not kept for the next start: keys are written to memory only", "dir", c.Dir)
	}
	return k
}

// Dir is where things are kept; empty if nothing is.
func (k *Keeper) Dir() string {
	if k.silent() {
		return ""
	}
	return k.config.Dir
}

func (k *Keeper) header() header {
	return header{Cluster: k.config.Cluster, TrustDomain: k.config.TrustDomain, Node: k.config.Node, Written: time.Now()}
}

// Run writes what changes until ctx is done. Leave ends the writing before.
func (k *Keeper) Run(ctx context.Context, from Source) error {
	confirm := time.NewTicker(k.config.Confirm)
	defer confirm.Stop()
	for {
		select {
		case <-k.wake:
			pause := time.NewTimer(k.flush(from))
			select {
			case <-pause.C:
			case <-ctx.Done():
			}
			pause.Stop()
		case <-confirm.C:
			k.confirm(from)
		case <-ctx.Done():
			return nil
		}
	}
}

// Leave writes what is new for the last time: from here on a successor may
// write, which knows more.
func (k *Keeper) Leave(from Source) {
	k.flush(from)
	k.confirm(from)
	k.mu.Lock()
	defer k.mu.Unlock()
	k.left = true
}

// silent says that nothing is to be written.
func (k *Keeper) silent() bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.off != nil || k.left
}

// flush writes the files that are not up to date, and says how long not to
// write after that.
func (k *Keeper) flush(from Source) time.Duration {
	k.writing.Lock()
	defer k.writing.Unlock()
	if k.silent() {
		return 0
	}
	began := time.Now()
	k.flushState()
	k.flushCertificates(from)
	return max(k.config.Pause, 50*time.Since(began))
}

// changed notes that a file is out of date.
func (k *Keeper) changed(name string) {
	k.mu.Lock()
	k.files[name].dirty = true
	k.mu.Unlock()
	k.signal()
}

func (k *Keeper) signal() {
	select {
	case k.wake <- struct{}{}:
	default:
	}
}

// take says whether a file is to be written, and that it will be.
func (k *Keeper) take(name string) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	f := k.files[name]
	dirty := f.dirty
	f.dirty = false
	return dirty
}

// wrote notes how the writing of a file went. One that failed is tried again
// with the next change.
func (k *Keeper) wrote(name string, s sum, size int64, err error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	f := k.files[name]
	if err != nil {
		if f.failures++; f.complaint != err.Error() {
			k.log.Warn("it cannot be kept for the next start", "file", name, "error", err)
		}
		f.complaint = err.Error()
		return
	}
	f.writes++
	f.sum, f.bytes, f.written, f.complaint = s, size, time.Now(), ""
}

// refuse notes that a file is there and not used.
func (k *Keeper) refuse(name string, why error) {
	k.log.Warn("what was kept is not used", "file", name, "reason", why)
	k.mu.Lock()
	defer k.mu.Unlock()
	k.files[name].refused++
	k.files[name].complaint = why.Error()
}

// drop removes a file.
func (k *Keeper) drop(name string) { os.Remove(filepath.Join(k.config.Dir, name)) }

// Receiver gives updates to another, and keeps what that took.
func (k *Keeper) Receiver(to xds.Receiver) xds.Receiver { return receiver{k, to} }

type receiver struct {
	k  *Keeper
	to xds.Receiver
}

// Receive implements xds.Receiver.
func (r receiver) Receive(ctx context.Context, u xds.Update) []xds.Rejection {
	rejected := r.to.Receive(ctx, u)
	r.k.note(u, rejected)
	return rejected
}
