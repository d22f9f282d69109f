package stage

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/ambit-mesh/ambit/e2e/cluster"
)

// frame makes an Ethernet frame with a TCP segment.
func frame(v6 bool, src, dst uint16, payload string) []byte {
	f := make([]byte, 12)
	tcp := binary.BigEndian.AppendUint16(binary.BigEndian.AppendUint16(nil, src), dst)
	tcp = append(append(tcp, make([]byte, 16)...), payload...)
	if v6 {
		ip := make([]byte, 40)
		ip[0], ip[6] = 0x60, 6
		return append(append(append(f, 0x86, 0xdd), ip...), tcp...)
	}
	ip := make([]byte, 24) // with an option, so that the header length counts
	ip[0], ip[9] = 0x46, 6
	return append(append(append(f, 0x08, 0x00), ip...), tcp...)
}

func TestWhatIsCountedOnTheWire(t *testing.T) {
	for _, tt := range []struct {
		what             string
		frame            []byte
		marked, tunneled bool
	}{
		{"a marked IPv4 segment", frame(false, 40000, 8080, "a MARK b"), true, false},
		{"an unmarked IPv6 segment", frame(true, 40000, 8080, "a b"), false, false},
		{"a tunnelled IPv4 segment", frame(false, 40000, 15008, "x"), false, true},
		{"a tunnelled IPv6 answer that leaks", frame(true, 15008, 40000, "MARK"), true, true},
		{"a short frame", []byte("MARK"), true, false},
		{"a UDP datagram to the port", func() []byte { f := frame(false, 1, 15008, ""); f[14+9] = 17; return f }(), false, false},
		{"another protocol", append(make([]byte, 12), append([]byte{0x08, 0x06}, make([]byte, 60)...)...), false, false},
	} {
		var w Wire
		w.count(tt.frame, []byte("MARK"))
		if (w.Marked == 1) != tt.marked || (w.Tunnelled > 0) != tt.tunneled || w.Frames != 1 || w.Bytes != len(tt.frame) {
			t.Errorf("%s: counted %+v", tt.what, w)
		}
		if len(w.Sightings) != w.Marked {
			t.Errorf("%s: %d sightings of %d marked frames", tt.what, len(w.Sightings), w.Marked)
		}
	}
}

func TestASightingSaysBetweenWhom(t *testing.T) {
	var w Wire
	for range 2 * maxSightings {
		f := frame(false, 40000, 8080, "MARK")
		copy(f[14+12:], []byte{10, 1, 0, 7, 10, 2, 0, 9})
		w.count(f, []byte("MARK"))
	}
	if len(w.Sightings) != maxSightings || w.Marked != 2*maxSightings {
		t.Fatalf("%d sightings are kept of %d", len(w.Sightings), w.Marked)
	}
	first := w.Sightings[0]
	if got := first.From.String() + " → " + first.To.String(); got != "10.1.0.7:40000 → 10.2.0.9:8080" || first.At.IsZero() {
		t.Errorf("the first was at %s, %s", first.At, got)
	}
}

func TestAccessRecordsAreFoundAmongOtherLines(t *testing.T) {
	line := `{"time":"2026-01-01T00:00:00Z","level":"INFO","msg":"connection complete","component":"access","direction":"inbound","src.identity":"spiffe://a","dst.workload":"db","policy":"shop/p","reason":"denied"}`
	a, ok := parseAccess(line)
	if want := (Access{Direction: "inbound", SourceIdentity: "spiffe://a", Destination: "db", Policy: "shop/p", Reason: "denied"}); !ok || a != want {
		t.Errorf("got %+v, %v", a, ok)
	}
	for _, other := range []string{"", "plain text", `{"component":"xds","msg":"connected"}`} {
		if _, ok := parseAccess(other); ok {
			t.Errorf("%q was taken for an access record", other)
		}
	}
}

func TestUntilTellsTheLastErrorAndWhyItEnded(t *testing.T) {
	ctx, cancel := context.WithTimeoutCause(context.Background(), 10*time.Millisecond, errors.New("out of patience"))
	defer cancel()
	err := Until(ctx, func(context.Context) error { return errors.New("still wrong") })
	if err == nil || !strings.Contains(err.Error(), "still wrong") || !strings.Contains(err.Error(), "out of patience") {
		t.Errorf("got %v", err)
	}
	n := 0
	if err := Until(context.Background(), func(context.Context) error {
		if n++; n < 3 {
			return errors.New("not yet")
		}
		return nil
	}); err != nil || n != 3 {
		t.Errorf("got %v after %d attempts", err, n)
	}
}

func TestProgressIsIndentedAndNamesNoComponent(t *testing.T) {
	var b bytes.Buffer
	s := &Stage{log: nil}
	s.cfg.Progress = &b
	s.began = time.Now()
	s.Step("doing %d things", 3)
	if !strings.Contains(b.String(), "] doing 3 things\n") {
		t.Errorf("printed %q", b.String())
	}
}

func TestWhoseClusterAKubeconfigLeadsTo(t *testing.T) {
	for kubeconfig, want := range map[string]bool{
		"":                                       false,
		cluster.DefaultRoot + "/demo/kubeconfig": false,
		cluster.DefaultRoot + "/x/../demo/kubeconfig": false,
		cluster.DefaultRoot + "-other/kubeconfig":     true,
		"/home/ada/.kube/config":                      true,
	} {
		if got := Foreign(kubeconfig); got != want {
			t.Errorf("%q: foreign is %v, want %v", kubeconfig, got, want)
		}
	}
}
