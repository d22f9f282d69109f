package stage

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"net/netip"
	"sync"
	"time"
)

// ErrNoWire is a capture on a cluster whose nodes are not ours.
var ErrNoWire = errors.New("the link between the nodes of this cluster is out of reach")

// Wire is what passed between the nodes while a capture ran.
type Wire struct {
	// Frames and Bytes are everything; Missed are the frames that came faster
	// than they were looked at.
	Frames, Bytes, Missed int
	// Marked are the frames in which the marker string was seen in clear.
	Marked int
	// Sightings are the first of those.
	Sightings []Sighting
	// Tunnelled are the bytes of frames from or to the HBONE port.
	Tunnelled int
}

// Sighting is one frame in which the marker was seen.
type Sighting struct {
	At time.Time
	// From and To are zero if it was no TCP segment.
	From, To netip.AddrPort
}

// maxSightings bounds what is kept of them.
const maxSightings = 20

// tunnelPort is HBONE's.
const tunnelPort = 15008

// Listen captures what passes a node's port of the bridge, until stop is
// called. It looks for a marker in clear.
func (s *Stage) Listen(ctx context.Context, node, marker string) (stop func() (Wire, error), err error) {
	if s.Cluster == nil {
		return nil, ErrNoWire
	}
	var seen Wire
	ctx, cancel := context.WithCancel(ctx)
	ready, failed := make(chan struct{}), make(chan error, 1)
	var running sync.WaitGroup
	running.Go(func() {
		missed, err := s.Cluster.Capture(ctx, node, func() { close(ready) }, func(frame []byte) { seen.count(frame, []byte(marker)) })
		seen.Missed = missed
		failed <- err
	})
	select {
	case <-ready:
	case err := <-failed:
		cancel()
		return nil, err
	}
	return func() (Wire, error) {
		cancel()
		running.Wait()
		return seen, <-failed
	}, nil
}

func (w *Wire) count(frame, marker []byte) {
	w.Frames++
	w.Bytes += len(frame)
	from, to, ok := tcpEnds(frame)
	if ok && (from.Port() == tunnelPort || to.Port() == tunnelPort) {
		w.Tunnelled += len(frame)
	}
	if !bytes.Contains(frame, marker) {
		return
	}
	w.Marked++
	if len(w.Sightings) < maxSightings {
		w.Sightings = append(w.Sightings, Sighting{At: time.Now(), From: from, To: to})
	}
}

// tcpEnds reads the addresses and ports of a TCP segment in an Ethernet frame.
func tcpEnds(frame []byte) (from, to netip.AddrPort, ok bool) {
	const ethernet, tcp = 14, 6
	if len(frame) < ethernet+20 {
		return from, to, false
	}
	ip := frame[ethernet:]
	var source, destination, segment []byte
	switch binary.BigEndian.Uint16(frame[12:]) {
	case 0x0800:
		header := int(ip[0]&0x0f) * 4
		if ip[9] != tcp || len(ip) < header {
			return from, to, false
		}
		source, destination, segment = ip[12:16], ip[16:20], ip[header:]
	case 0x86dd:
		if len(ip) < 40 || ip[6] != tcp {
			return from, to, false
		}
		source, destination, segment = ip[8:24], ip[24:40], ip[40:]
	}
	if len(segment) < 4 {
		return from, to, false
	}
	end := func(address, port []byte) netip.AddrPort {
		a, _ := netip.AddrFromSlice(address) // of 4 or 16 bytes
		return netip.AddrPortFrom(a, binary.BigEndian.Uint16(port))
	}
	return end(source, segment), end(destination, segment[2:]), true
}
