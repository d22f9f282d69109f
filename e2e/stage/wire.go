package stage

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"sync"
)

// ErrNoWire is a capture on a cluster whose nodes are not ours.
var ErrNoWire = errors.New("the link between the nodes of this cluster is out of reach")

// Wire is what passed between the nodes while a capture ran.
type Wire struct {
	// Frames and Bytes are everything.
	Frames, Bytes int
	// Marked are the frames in which the marker string was seen in clear.
	Marked int
	// Tunnelled are the bytes of frames from or to the HBONE port.
	Tunnelled int
}

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
		failed <- s.Cluster.Capture(ctx, node, func() { close(ready) }, func(frame []byte) { seen.count(frame, []byte(marker)) })
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
	if bytes.Contains(frame, marker) {
		w.Marked++
	}
	if src, dst, ok := tcpPorts(frame); ok && (src == tunnelPort || dst == tunnelPort) {
		w.Tunnelled += len(frame)
	}
}

// tcpPorts reads the ports of a TCP segment in an Ethernet frame.
func tcpPorts(frame []byte) (src, dst uint16, ok bool) {
	const ethernet, tcp = 14, 6
	if len(frame) < ethernet+20 {
		return 0, 0, false
	}
	ip := frame[ethernet:]
	var segment []byte
	switch binary.BigEndian.Uint16(frame[12:]) {
	case 0x0800:
		header := int(ip[0]&0x0f) * 4
		if ip[9] != tcp || len(ip) < header {
			return 0, 0, false
		}
		segment = ip[header:]
	case 0x86dd:
		if len(ip) < 40 || ip[6] != tcp {
			return 0, 0, false
		}
		segment = ip[40:]
	}
	if len(segment) < 4 {
		return 0, 0, false
	}
	return binary.BigEndian.Uint16(segment), binary.BigEndian.Uint16(segment[2:]), true
}
