package kept

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"slices"
	"time"

	"github.com/ambit-mesh/ambit/internal/xds"
)

// known is what the control plane has sent, under Keeper.mu.
type known struct {
	types      map[string]map[string]xds.Resource
	seen       map[string]bool // types that have been sent at all
	generation uint64
	size       int64
	overflow   bool // too large to be kept; the resources are let go of
}

func newKnown() known {
	k := known{types: map[string]map[string]xds.Resource{}, seen: map[string]bool{}}
	for _, typ := range types {
		k.types[typ] = map[string]xds.Resource{}
	}
	return k
}

// sizeOf is what a resource takes in a file, or nearly.
func sizeOf(r xds.Resource) int64 { return int64(len(r.Name) + len(r.Version) + len(r.Body) + 6) }

func (k *known) put(typ string, r xds.Resource) {
	k.remove(typ, r.Name)
	k.types[typ][r.Name] = r
	k.size += sizeOf(r)
}

func (k *known) remove(typ, name string) {
	if old, there := k.types[typ][name]; there {
		k.size -= sizeOf(old)
		delete(k.types[typ], name)
	}
}

// apply takes an update as the proxy did. Of a resource that was rejected the
// proxy goes on with what it had, but for a policy, which closes what it guards
// until it is understood; so that is kept. Neither has a version, for it to be
// sent again.
func (k *known) apply(u xds.Update, rejected []xds.Rejection) {
	for _, r := range u.Upserts {
		refused := slices.ContainsFunc(rejected, func(x xds.Rejection) bool { return x.Name == r.Name })
		if refused && u.Type != xds.TypeAuthorization {
			var had bool
			if r, had = k.types[u.Type][r.Name]; !had {
				continue
			}
		}
		if refused {
			r.Version = ""
		}
		k.put(u.Type, xds.Resource{Name: r.Name, Version: r.Version, Body: r.Body})
	}
	for _, name := range u.Removed {
		k.remove(u.Type, name)
	}
	k.seen[u.Type] = true
	k.generation = max(k.generation, u.Generation)
}

// whole says whether every type is there: a state in part is never written.
func (k *known) whole() bool {
	return !slices.ContainsFunc(types, func(typ string) bool { return !k.seen[typ] })
}

// note keeps an update.
func (k *Keeper) note(u xds.Update, rejected []xds.Rejection) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.off != nil || k.left || k.known.overflow || !slices.Contains(types, u.Type) {
		return
	}
	k.known.apply(u, rejected)
	if k.known.size > k.config.MaxBytes {
		k.log.Warn("the state is too large to be kept for the next start", "bytes", k.known.size, "limit", k.config.MaxBytes)
		k.known = known{overflow: true}
	}
	if k.known.overflow || k.known.whole() {
		k.files[stateFile].dirty = true
		k.signal()
	}
}

// flushState writes the state of now.
func (k *Keeper) flushState() {
	if !k.take(stateFile) {
		return
	}
	k.mu.Lock()
	overflow, h, copied := k.known.overflow, k.header(), map[string]map[string]xds.Resource{}
	h.Generation = k.known.generation
	for typ, resources := range k.known.types {
		copied[typ] = maps.Clone(resources)
	}
	k.mu.Unlock()
	if overflow {
		k.drop(stateFile)
		return
	}
	s, size, err := write(k.config.Dir, stateFile, h, func(w io.Writer) error { return encode(w, copied) })
	k.wrote(stateFile, s, size, err)
}

// confirm writes down that the control plane still says what the file holds.
func (k *Keeper) confirm(from Source) {
	k.writing.Lock()
	defer k.writing.Unlock()
	k.mu.Lock()
	f := k.files[stateFile]
	current, s := !f.dirty && f.sum != sum{} && k.known.whole() && k.off == nil && !k.left, f.sum
	k.mu.Unlock()
	if !current || !from.Connected() {
		return
	}
	s, size, err := write(k.config.Dir, confirmedFile, k.header(), func(w io.Writer) error { _, err := w.Write(s[:]); return err })
	k.wrote(confirmedFile, s, size, err)
}

// Restored is what a ztunnel began with.
type Restored struct {
	Confirmed  time.Time `json:"confirmed"`
	Age        string    `json:"age"`
	Generation uint64    `json:"generation,omitempty"`
	Resources  int       `json:"resources"`
}

// State reads what was kept, and goes on from it. Nil: there is nothing that
// may be used.
func (k *Keeper) State() *State {
	if k.silent() {
		return nil
	}
	s, check, err := k.readState()
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		k.refuse(stateFile, err)
		return nil
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.restored = &Restored{Confirmed: s.Confirmed, Age: age(s.Confirmed).Round(time.Second).String(), Generation: s.Generation}
	k.files[stateFile].sum, k.files[stateFile].written = check, s.Confirmed
	k.known.generation = s.Generation
	for _, typ := range types {
		k.known.seen[typ] = true
		for _, r := range s.Types[typ] {
			k.known.put(typ, r)
			k.restored.Resources++
		}
	}
	k.log.Info("state restored", "resources", k.restored.Resources, "generation", s.Generation, "age", k.restored.Age)
	return s
}

func (k *Keeper) readState() (*State, sum, error) {
	h, body, check, err := read(k.config.Dir, stateFile, k.config.MaxBytes+headroom)
	if err != nil {
		return nil, check, err
	}
	if err := k.ours(h); err != nil {
		return nil, check, err
	}
	s := &State{Generation: h.Generation, Confirmed: h.Written}
	if later, mark, _, err := read(k.config.Dir, confirmedFile, headroom); err == nil && k.ours(later) == nil && string(mark) == string(check[:]) {
		s.Confirmed = later.Written
	}
	if err := k.fresh(s.Confirmed); err != nil {
		return nil, check, err
	}
	s.Types, err = decode(body)
	return s, check, err
}

// headroom is for what a file holds beside resources.
const headroom = 1 << 20

// ours refuses what another mesh or another node wrote.
func (k *Keeper) ours(h header) error {
	if c := k.config; h.Cluster != c.Cluster || h.TrustDomain != c.TrustDomain || h.Node != c.Node {
		return fmt.Errorf("it is of node %q in cluster %q and trust domain %q", h.Node, h.Cluster, h.TrustDomain)
	}
	return nil
}

// fresh refuses what is too old. A clock that was put back a little makes
// nothing old; one that was put back far says nothing.
func (k *Keeper) fresh(at time.Time) error {
	switch old := time.Since(at); {
	case old > k.config.MaxAge:
		return fmt.Errorf("it is %s old, more than %s", old.Round(time.Second), k.config.MaxAge)
	case old < -time.Hour:
		return fmt.Errorf("it is of %s from now", (-old).Round(time.Second))
	}
	return nil
}

// age is never less than nothing.
func age(at time.Time) time.Duration { return max(0, time.Since(at)) }
