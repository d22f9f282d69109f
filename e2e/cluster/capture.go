package cluster

import (
	"context"
	"fmt"
	"time"

	"golang.org/x/sys/unix"
)

// Capture calls frame with every Ethernet frame that passes the port of a
// machine ("node1"), or the whole bridge for "", until the context ends. ready
// is called once the capture runs. The frame is valid during the call only.
// missed are the frames that came faster than they were looked at.
func (c *Cluster) Capture(ctx context.Context, machineName string, ready func(), frame func([]byte)) (missed int, err error) {
	s, err := c.read()
	if err != nil {
		return 0, err
	}
	device := machineName
	if device == "" {
		device = bridgeName
	}
	fd, err := openCapture(netnsPath(s.plan().lanNetns()), device)
	if err != nil {
		return 0, fmt.Errorf("capture on %s: %w", device, err)
	}
	defer unix.Close(fd)
	ready()
	if missed, err = look(ctx, fd, frame); err != nil {
		return 0, fmt.Errorf("capture on %s: %w", device, err)
	}
	return missed, nil
}

// look gives away the frames of a capture until ctx ends. What has passed until
// then is looked at, too. Frames are collected for some milliseconds: to be woken
// for each of thousands a second takes a quarter of a processor, from what is
// listened to.
func look(ctx context.Context, fd int, frame func([]byte)) (missed int, err error) {
	buf := make([]byte, 1<<16)
	for ending := false; ; {
		n, err := unix.Read(fd, buf)
		switch {
		case err == nil:
			frame(buf[:n])
		case err == unix.EINTR:
		case err != unix.EAGAIN:
			return 0, err
		case ending:
			return missedBy(fd)
		case ctx.Err() != nil:
			ending = true // once more, for what came before the end
		default:
			time.Sleep(10 * time.Millisecond)
		}
	}
}

// missedBy is how many frames did not fit into the buffer of a capture.
func missedBy(fd int) (int, error) {
	counts, err := unix.GetsockoptTpacketStats(fd, unix.SOL_PACKET, unix.PACKET_STATISTICS)
	if err != nil {
		return 0, fmt.Errorf("counting missed frames: %w", err)
	}
	return int(counts.Drops), nil
}

func openCapture(netns, device string) (fd int, err error) {
	err = InNetns(netns, func() error {
		index, err := interfaceIndex(device)
		if err != nil {
			return err
		}
		const all = unix.ETH_P_ALL<<8&0xff00 | unix.ETH_P_ALL>>8 // network byte order
		if fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, all); err != nil {
			return err
		}
		if err := prepareCapture(fd, index, all); err != nil {
			unix.Close(fd)
			return err
		}
		return nil
	})
	return fd, err
}

func prepareCapture(fd, index int, protocol uint16) error {
	// Large, so that a busy machine loses no frame: a missing one could hide a leak.
	if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 64<<20); err != nil {
		return err
	}
	if err := unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: protocol, Ifindex: index}); err != nil {
		return err
	}
	// A bridge hands up only its own frames unless it is promiscuous.
	return unix.SetsockoptPacketMreq(fd, unix.SOL_PACKET, unix.PACKET_ADD_MEMBERSHIP,
		&unix.PacketMreq{Ifindex: int32(index), Type: unix.PACKET_MR_PROMISC})
}

func interfaceIndex(name string) (int, error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return 0, err
	}
	defer unix.Close(fd)
	req, err := unix.NewIfreq(name)
	if err != nil {
		return 0, err
	}
	if err := unix.IoctlIfreq(fd, unix.SIOCGIFINDEX, req); err != nil {
		return 0, fmt.Errorf("interface %s: %w", name, err)
	}
	return int(req.Uint32()), nil
}
