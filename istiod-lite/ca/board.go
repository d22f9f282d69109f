package ca

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/ambit-mesh/ambit/istiod-lite/rotation"
)

// Board is what the replicas of a control plane share.
type Board interface {
	// Read gives the newest that is known.
	Read() Reading
	// Changed is sent to when Read gives something else.
	Changed() <-chan struct{}
	// Write replaces the course of a reading, unless another has done so since:
	// then it is ErrOvertaken.
	Write(ctx context.Context, last Reading, next *Course) error
	// Note writes a replica's record in place of its last one.
	Note(ctx context.Context, r rotation.Record) error
	// Renew makes a new root of our own and wants it from now on.
	Renew(ctx context.Context, last Reading) error
}

// ErrOvertaken is a course that somebody else has changed.
var ErrOvertaken = errors.New("somebody else has changed it")

// Reading is what a Board holds. It is not changed.
type Reading struct {
	// Course is nil if there is none yet; Version is its.
	Course  *Course
	Version string
	// Target is the authority that is wanted, nil if it cannot be read. Plugged
	// says that a user has brought it.
	Target  *Material
	Plugged bool
	// Revocations are lists of revoked certificates, DER.
	Revocations [][]byte
	Records     []rotation.Record
	// Forced is the epoch that ends although somebody has not confirmed it.
	Forced uint64
	// Asked says that a user wants another root of our own.
	Asked bool
}

// Memory is the Board of a single replica, and of tests.
type Memory struct {
	changed chan struct{}

	mu      sync.Mutex
	reading Reading
	version int
}

var _ Board = (*Memory)(nil)

// NewMemory makes an empty one.
func NewMemory() *Memory { return &Memory{changed: make(chan struct{}, 1)} }

// Begin holds a course and wants its authority.
func (m *Memory) Begin(c *Course) {
	m.Change(func(r *Reading) { *r = Reading{Course: c, Version: "0", Target: c.Material, Plugged: true} })
}

// Read implements Board.
func (m *Memory) Read() Reading {
	m.mu.Lock()
	defer m.mu.Unlock()
	r := m.reading
	r.Records = slices.Clone(r.Records)
	return r
}

// Changed implements Board.
func (m *Memory) Changed() <-chan struct{} { return m.changed }

// Change changes what is wanted.
func (m *Memory) Change(f func(*Reading)) {
	m.mu.Lock()
	f(&m.reading)
	m.mu.Unlock()
	select {
	case m.changed <- struct{}{}:
	default:
	}
}

// Write implements Board.
func (m *Memory) Write(_ context.Context, last Reading, next *Course) (err error) {
	m.Change(func(r *Reading) {
		if r.Version != last.Version {
			err = ErrOvertaken
			return
		}
		m.version++
		r.Course, r.Version = next, time.Duration(m.version).String()
	})
	return err
}

// Note implements Board.
func (m *Memory) Note(_ context.Context, record rotation.Record) error {
	m.Change(func(r *Reading) {
		r.Records = slices.DeleteFunc(slices.Clone(r.Records), func(o rotation.Record) bool { return o.Replica == record.Replica })
		r.Records = append(r.Records, record)
	})
	return nil
}

// Renew implements Board.
func (m *Memory) Renew(context.Context, Reading) error {
	return errors.New("this root is not ours to renew")
}
