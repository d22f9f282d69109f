// Package journal remembers which connections are open in a file that outlives
// the process: the next one reads there what was cut when its predecessor was
// killed, and records each.
//
// It owns the form of the file and whose it is: a process holds a lock on its
// own as long as it lives, so that a file without a lock is of one that ended
// without closing it. It refuses to count or to log, which telemetry does, and
// to be in the way: what cannot be written is not remembered. ztunnel's root
// calls it.
package journal

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ambit-mesh/ambit/internal/telemetry"
)

const (
	// slotSize is what one connection takes: its text behind its length, which is
	// 0 in a free slot. Slots do not cross pages.
	slotSize = 256
	// maxSlots bounds the connections that are remembered.
	maxSlots = 1 << 16
	// prefix begins the files' names, fresh those of files that have no lock yet.
	prefix, fresh = "connections-", ".fresh-"
)

// Journal is one process's. A nil Journal remembers nothing.
type Journal struct {
	file *os.File
	name string

	mu   sync.Mutex
	free []int // slots that were used, the last first: the file stays short
	next int   // slot that was never used
}

var _ telemetry.Journal = (*Journal)(nil)

// Open begins a journal in dir, and gives what those who were killed left
// there. Their journals go.
func Open(dir string) (*Journal, []telemetry.Flow, error) {
	lost, err := collect(dir)
	if err != nil {
		return nil, lost, fmt.Errorf("journals of connections: %w", err)
	}
	j, err := create(dir)
	if err != nil {
		return nil, lost, fmt.Errorf("journal of connections: %w", err)
	}
	return j, lost, nil
}

func create(dir string) (*Journal, error) {
	f, err := os.CreateTemp(dir, fresh+"*") // 0600
	if err != nil {
		return nil, err
	}
	name := filepath.Join(dir, prefix+strings.TrimPrefix(filepath.Base(f.Name()), fresh))
	if err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err == nil {
		err = os.Rename(f.Name(), name)
	}
	if err != nil {
		return nil, errors.Join(err, os.Remove(f.Name()), f.Close())
	}
	return &Journal{file: f, name: name}, nil
}

// collect reads and removes the journals that nobody holds.
func collect(dir string) (lost []telemetry.Flow, err error) {
	names, err := filepath.Glob(filepath.Join(dir, prefix+"*"))
	if err != nil {
		return nil, err
	}
	for _, name := range names {
		f, err := os.Open(name)
		if err != nil {
			continue // another took it
		}
		if unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB) == nil {
			if text, err := os.ReadFile(name); err == nil {
				lost = append(lost, read(text)...)
			}
			os.Remove(name)
		}
		f.Close()
	}
	return lost, nil
}

// read gives the connections of a journal.
func read(text []byte) (out []telemetry.Flow) {
	for ; len(text) > 2; text = text[min(slotSize, len(text)):] {
		n := int(binary.LittleEndian.Uint16(text))
		if n == 0 || n+2 > min(slotSize, len(text)) {
			continue
		}
		if f, ok := parse(string(text[2 : 2+n])); ok {
			out = append(out, f)
		}
	}
	return out
}

// Begin implements telemetry.Journal. Whoever looks after a kill finds all of
// it or nothing: it is one write, within a page.
func (j *Journal) Begin(f *telemetry.Flow, _ time.Time) int {
	if j == nil {
		return -1
	}
	slot := j.take()
	if slot < 0 {
		return -1
	}
	var b [slotSize]byte
	n := copy(b[2:], format(f))
	binary.LittleEndian.PutUint16(b[:], uint16(n))
	if _, err := j.file.WriteAt(b[:2+n], int64(slot)*slotSize); err != nil {
		j.give(slot)
		return -1
	}
	return slot
}

// End implements telemetry.Journal.
func (j *Journal) End(slot int) {
	if j == nil || slot < 0 {
		return
	}
	j.file.WriteAt([]byte{0, 0}, int64(slot)*slotSize)
	j.give(slot)
}

func (j *Journal) take() int {
	j.mu.Lock()
	defer j.mu.Unlock()
	if n := len(j.free); n > 0 {
		slot := j.free[n-1]
		j.free = j.free[:n-1]
		return slot
	}
	if j.next == maxSlots {
		return -1
	}
	j.next++
	return j.next - 1
}

func (j *Journal) give(slot int) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.free = append(j.free, slot)
}

// Close ends the journal: every connection has been recorded.
func (j *Journal) Close() error {
	if j == nil {
		return nil
	}
	err := os.Remove(j.name)
	if errors.Is(err, fs.ErrNotExist) { // the mesh left the node, and took it away
		err = nil
	}
	if err = errors.Join(err, j.file.Close()); err != nil {
		return fmt.Errorf("journal of connections: %w", err)
	}
	return nil
}
