package kube

import (
	"encoding/json"

	corev1 "k8s.io/api/core/v1"

	"github.com/ambit-mesh/ambit/internal/certs"
	"github.com/ambit-mesh/ambit/istiod-lite/ca"
	"github.com/ambit-mesh/ambit/istiod-lite/rotation"
)

// Read implements ca.Board.
func (b *Board) Read() ca.Reading {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.reading == nil {
		r := b.readLocked()
		b.reading = &r
	}
	return *b.reading
}

func (b *Board) readLocked() ca.Reading {
	r := ca.Reading{Revocations: b.revocationsLocked()}
	if b.state == nil {
		return r
	}
	var err error
	r.Course, err = ca.ParseCourse(b.state.Data)
	if b.sayLocked(stateSecret, err); err != nil {
		return ca.Reading{Revocations: r.Revocations}
	}
	r.Version, r.Forced = b.state.ResourceVersion, forcedEpoch(b.state)
	if b.synced {
		b.targetLocked(&r)
	}
	if b.standing != nil {
		for replica, text := range b.standing.Data {
			var record rotation.Record
			if json.Unmarshal([]byte(text), &record) == nil && record.Replica == replica {
				r.Records = append(r.Records, record)
			}
		}
	}
	return r
}

// targetLocked finds the authority that is wanted: the plugged-in one, else our
// own. Where the plugged-in one is gone, the last one stays until somebody asks
// for a root of our own.
func (b *Board) targetLocked(r *ca.Reading) {
	at := r.Course.State.Target
	if b.plugged != nil {
		r.Plugged = true
		m, err := parseSecret(b.plugged)
		if b.sayLocked(pluggedSecret, err); err == nil {
			r.Target = m
		}
		return
	}
	if b.own == nil {
		return
	}
	r.Asked = b.own.Annotations[askedFor] != b.own.Annotations[servedFor]
	m, err := parseSecret(b.own)
	if b.sayLocked(ownSecret, err); err != nil {
		return
	}
	if certs.Fingerprint(m.Cert) == at.Signer || rotation.Root(b.own.Annotations[insteadOf]) == at.Root {
		r.Target = m
		b.said["replaced"] = ""
	} else if b.said["replaced"] == "" {
		b.said["replaced"] = "yes"
		b.log.Warn("the mesh keeps its certificate authority, which is in no other Secret any more; `ambit ca rotate` makes one of its own", "secret", stateSecret)
	}
}

// revocationsLocked are the lists beside the signing key. One that cannot be
// read leaves the last.
func (b *Board) revocationsLocked() [][]byte {
	var text []byte
	for _, s := range []map[string][]byte{dataOf(b.own), dataOf(b.plugged)} {
		if list := s[revocationKey]; len(list) > 0 {
			text = append(append(text, list...), '\n')
		}
	}
	lists, err := certs.ParseRevocations(text)
	if b.sayLocked(revocationKey, err); err == nil {
		b.last = lists
	}
	return b.last
}

// sayLocked logs what is wrong with a thing, once until it is another thing.
func (b *Board) sayLocked(what string, err error) {
	text := ""
	if err != nil {
		text = err.Error()
	}
	if text != "" && b.said[what] != text {
		b.log.Error("not taken, the last one stays", "what", what, "reason", text)
	}
	b.said[what] = text
}

func dataOf(s *corev1.Secret) map[string][]byte {
	if s == nil {
		return nil
	}
	return s.Data
}
