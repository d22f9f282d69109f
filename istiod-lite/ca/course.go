package ca

import (
	"crypto/x509"
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"github.com/ambit-mesh/ambit/internal/certs"
	"github.com/ambit-mesh/ambit/istiod-lite/rotation"
)

// Course is how far the mesh is on its way from one authority to another, with
// what signs meanwhile: the one that is left may be nowhere else any more. It is
// immutable.
type Course struct {
	State rotation.State
	// Material signs; its roots are those that are trusted.
	Material *Material
}

// keyState is the key of the state beside those of Material.Data.
const keyState = "state.json"

// NewCourse is that of a mesh whose only authority is m. Of an earlier course,
// which is given up, only what must not be reused is taken over.
func NewCourse(m *Material, before *Course, now time.Time) (*Course, error) {
	t, err := target(m, now)
	if err != nil {
		return nil, err
	}
	s := rotation.Begin(t, DefaultTTL, now)
	if before != nil {
		s.Epoch = max(s.Epoch, before.State.Epoch+1)
		s.Longest = max(s.Longest, before.State.Longest)
	}
	return &Course{State: s, Material: m}, nil
}

// Data is the course as a Secret's data.
func (c *Course) Data() (map[string][]byte, error) {
	data, err := c.Material.Data()
	if err != nil {
		return nil, err
	}
	data[keyState], err = json.Marshal(c.State)
	return data, err
}

// ParseCourse reads what Data wrote.
func ParseCourse(data map[string][]byte) (*Course, error) {
	m, err := ParseMaterial(data)
	if err != nil {
		return nil, err
	}
	c := &Course{Material: m}
	if err := json.Unmarshal(data[keyState], &c.State); err != nil {
		return nil, fmt.Errorf("state of the rotation: %w", err)
	}
	if got := names(m.Roots); !slices.Equal(got, c.State.Trusted) || certs.Fingerprint(m.Cert) != c.State.Signer {
		return nil, fmt.Errorf("state of the rotation: it does not belong to the certificates beside it")
	}
	return c, nil
}

// next is the course after c if to is wanted and others are still waited for.
func (c *Course) next(to *Material, waiting []rotation.Waiting, now time.Time) (*Course, bool, error) {
	if c.Material.Check(now) != nil && to.Check(now) == nil {
		// Whoever has a certificate of an authority that has ended can use it no
		// more: there is nothing to wait for.
		n, err := NewCourse(to, c, now)
		return n, err == nil, err
	}
	t, err := target(to, now)
	if err != nil {
		return c, false, err
	}
	s, moved := c.State.Next(t, waiting, now)
	if !moved {
		return c, false, nil
	}
	from := c.Material
	if s.Signer == t.Signer {
		from = to
	}
	n := &Course{State: s, Material: &Material{Cert: from.Cert, Key: from.Key}}
	for _, root := range slices.Concat(c.Material.Roots, to.Roots) {
		if slices.Contains(s.Trusted, name(root)) && !slices.ContainsFunc(n.Material.Roots, root.Equal) {
			n.Material.Roots = append(n.Material.Roots, root)
		}
	}
	n.Material.Intermediates = intermediates(append([]*x509.Certificate{from.Cert}, from.Intermediates...), n.Material.Roots)
	if err := n.Material.Check(now); err != nil {
		return c, false, fmt.Errorf("signing material: %w", err)
	}
	return n, true, nil
}

// target is what of a material the rule of rotation knows.
func target(m *Material, now time.Time) (rotation.Target, error) {
	root, err := m.root(now)
	if err != nil {
		return rotation.Target{}, err
	}
	return rotation.Target{Signer: certs.Fingerprint(m.Cert), Root: name(root), Roots: names(m.Roots)}, nil
}

func name(root *x509.Certificate) rotation.Root { return rotation.Root(certs.Fingerprint(root)) }

func names(roots []*x509.Certificate) []rotation.Root {
	out := make([]rotation.Root, len(roots))
	for i, r := range roots {
		out[i] = name(r)
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// trust is what proxies are told of a course. Each of many spreads its requests
// for new certificates, so that they are no storm together.
func (c *Course) trust(revocations [][]byte, proxies int) certs.Trust {
	return certs.Trust{
		Epoch: c.State.Epoch, Roots: c.Material.Roots, Active: string(c.State.Active), Revocations: revocations,
		Spread: min(time.Duration(proxies)*spreadEach, spreadMax),
	}
}

const (
	spreadEach = 200 * time.Millisecond
	spreadMax  = 10 * time.Minute
)
