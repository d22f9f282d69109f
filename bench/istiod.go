package bench

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/ambit-mesh/ambit/e2e/apiserver"
)

// istiod is the control plane's real program, built as for its image.
type istiod struct {
	cmd  *exec.Cmd
	done <-chan struct{} // closed when it has ended
	grpc string          // its address
	took time.Duration
	log  *os.File
}

// readyWithin is how long it may take to read everything.
const readyWithin = 2 * time.Minute

func startIstiod(ctx context.Context, checkout, dir, kubeconfig string) (*istiod, error) {
	program := filepath.Join(dir, "istiod")
	build := exec.CommandContext(ctx, "go", "build", "-trimpath", "-buildvcs=false", "-ldflags=-s -w", "-o", program, "./istiod-lite/cmd/istiod")
	build.Dir, build.Env = checkout, append(os.Environ(), "CGO_ENABLED=0")
	if said, err := build.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("building istiod: %w\n%s", err, said)
	}
	ports, err := freeAddresses(2)
	if err != nil {
		return nil, err
	}
	log, err := os.Create(filepath.Join(dir, "istiod.log"))
	if err != nil {
		return nil, err
	}
	i := &istiod{grpc: ports[0], log: log}
	i.cmd = exec.Command(program, "-kubeconfig", kubeconfig, "-grpc-address", ports[0], "-http-address", ports[1], "-metrics-address", "", "-identity", "bench")
	i.cmd.Stderr = log
	return i, i.start(ctx, ports[1])
}

func (i *istiod) start(ctx context.Context, http string) error {
	begin := time.Now()
	var err error
	if i.done, err = apiserver.StartTied(i.cmd); err != nil {
		return fmt.Errorf("starting istiod: %w", err)
	}
	for ; time.Since(begin) < readyWithin; time.Sleep(20 * time.Millisecond) {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if isReady(ctx, http) {
			i.took = time.Since(begin)
			return nil
		}
	}
	text, _ := os.ReadFile(i.log.Name())
	return fmt.Errorf("istiod is not ready after %s: %s", readyWithin, text[max(0, len(text)-2000):])
}

// freeAddresses are some on the loopback interface that nobody listens on.
func freeAddresses(n int) ([]string, error) {
	var all []string
	for range n {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return nil, err
		}
		defer l.Close() // after all are found, or one could be found twice
		all = append(all, l.Addr().String())
	}
	return all, nil
}

func isReady(ctx context.Context, address string) bool {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+address+"/ready", nil)
	if err != nil {
		return false
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return false
	}
	resp.Body.Close()
	return resp.StatusCode == http.StatusOK
}

func (i *istiod) stop() {
	if i.cmd.Process != nil {
		i.cmd.Process.Signal(syscall.SIGTERM)
		<-i.done
	}
	i.log.Close()
}

// resident is the memory of a process in bytes: now, its part that is pages of
// files, and the most since resetPeak.
type resident struct{ resident, file, peak float64 }

func (i *istiod) memory() (resident, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", i.cmd.Process.Pid))
	if err != nil {
		return resident{}, err
	}
	var m resident
	for field, to := range map[string]*float64{"VmRSS:": &m.resident, "RssFile:": &m.file, "VmHWM:": &m.peak} {
		_, rest, ok := bytes.Cut(text, []byte(field))
		words := strings.Fields(string(rest))
		if !ok || len(words) == 0 {
			return m, errors.New("the kernel does not tell " + field)
		}
		kilobytes, err := strconv.ParseFloat(words[0], 64)
		if err != nil {
			return m, err
		}
		*to = kilobytes * 1024
	}
	return m, nil
}

// resetPeak makes the peak what is resident now.
func (i *istiod) resetPeak() error {
	return os.WriteFile(fmt.Sprintf("/proc/%d/clear_refs", i.cmd.Process.Pid), []byte("5"), 0o600)
}
