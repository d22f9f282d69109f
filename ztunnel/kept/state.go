package kept

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"time"

	"github.com/ambit-mesh/ambit/internal/xds"
)

// State is what a control plane had sent at one moment.
type State struct {
	// Types are the resources by type URL and name. A version that is empty is
	// of a resource whose newest form was rejected.
	Types map[string]map[string]xds.Resource
	// Generation is the control plane's count; 0 if it does not count.
	Generation uint64
	// Confirmed is when the control plane was last known to say the same.
	Confirmed time.Time
}

// types are those that a state must have: workloads without their policies, or
// policies without their workloads, are no state.
var types = []string{xds.TypeAuthorization, xds.TypeAddress}

// Held is what the control plane need not send again: versions by type and name.
func (s *State) Held() map[string]map[string]string {
	held := map[string]map[string]string{}
	for typ, resources := range s.Types {
		held[typ] = make(map[string]string, len(resources))
		for name, r := range resources {
			held[typ][name] = r.Version
		}
	}
	return held
}

// Updates are the state as the control plane would send it: policies first.
func (s *State) Updates() []xds.Update {
	var out []xds.Update
	for _, typ := range types {
		u := xds.Update{Type: typ, Generation: s.Generation}
		for _, name := range slices.Sorted(maps.Keys(s.Types[typ])) {
			u.Upserts = append(u.Upserts, s.Types[typ][name])
		}
		out = append(out, u)
	}
	return out
}

// encode writes the resources of every type.
func encode(w io.Writer, all map[string]map[string]xds.Resource) error {
	b := []byte{}
	for _, typ := range types {
		b = binary.AppendUvarint(appendText(b[:0], typ), uint64(len(all[typ])))
		if _, err := w.Write(b); err != nil {
			return err
		}
		for name, r := range all[typ] {
			b = appendText(appendText(appendText(b[:0], name), r.Version), string(r.Body))
			if _, err := w.Write(b); err != nil {
				return err
			}
		}
	}
	return nil
}

func appendText(b []byte, s string) []byte {
	return append(binary.AppendUvarint(b, uint64(len(s))), s...)
}

var errCutShort = errors.New("it ends in the middle")

// decode reads what encode wrote, all of it.
func decode(body []byte) (map[string]map[string]xds.Resource, error) {
	all, r := map[string]map[string]xds.Resource{}, bytes.NewReader(body)
	for _, want := range types {
		typ, err := text(r)
		if err != nil {
			return nil, err
		}
		if string(typ) != want {
			return nil, fmt.Errorf("it has %q in place of %q", typ, want)
		}
		if all[want], err = decodeType(r); err != nil {
			return nil, err
		}
	}
	if r.Len() > 0 {
		return nil, fmt.Errorf("%d bytes follow its end", r.Len())
	}
	return all, nil
}

func decodeType(r *bytes.Reader) (map[string]xds.Resource, error) {
	n, err := binary.ReadUvarint(r)
	if err != nil || n > uint64(r.Len()) {
		return nil, errCutShort
	}
	out := make(map[string]xds.Resource, min(n, 1<<16))
	for range n {
		name, err1 := text(r)
		version, err2 := text(r)
		body, err3 := text(r)
		if err := errors.Join(err1, err2, err3); err != nil {
			return nil, err
		}
		if _, twice := out[string(name)]; twice {
			return nil, fmt.Errorf("it has %q twice", name)
		}
		out[string(name)] = xds.Resource{Name: string(name), Version: string(version), Body: body}
	}
	return out, nil
}

func text(r *bytes.Reader) ([]byte, error) {
	n, err := binary.ReadUvarint(r)
	if err != nil || n > uint64(r.Len()) {
		return nil, errCutShort
	}
	b := make([]byte, n)
	_, err = io.ReadFull(r, b)
	return b, err
}
