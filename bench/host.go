package bench

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes/fake"

	"github.com/ambit-mesh/ambit/cni"
	"github.com/ambit-mesh/ambit/cni/enrol"
	"github.com/ambit-mesh/ambit/internal/certs/certstest"
	"github.com/ambit-mesh/ambit/internal/linux"
	"github.com/ambit-mesh/ambit/ztunnel"
)

var pid = os.Getpid()

// host is a node without containers: an agent, a ztunnel, and pods to be.
type host struct {
	dir, plugin string
	kube        *fake.Clientset
	ns          *linux.NetNS
	pods        []*benchPod
	stop        context.CancelFunc
	done        chan error
	running     int
}

// benchPod is a network namespace and an object.
type benchPod struct {
	name, namespace, uid string
	ip                   netip.Addr
	ns                   *linux.NetNS
}

func newHost(ctx context.Context) (h *host, err error) {
	h = &host{done: make(chan error, 2), stop: func() {}, kube: fake.NewClientset(
		&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "shop", Labels: map[string]string{enrol.ModeLabel: "ambient"}}},
		&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "later"}},
	)}
	defer func() {
		if err != nil {
			h.close()
		}
	}()
	if h.dir, err = os.MkdirTemp("", "ambit-bench"); err != nil {
		return h, err
	}
	if h.ns, err = newNetNS(); err != nil {
		return h, err
	}
	h.plugin = h.path("ambit-cni")
	if out, err := exec.CommandContext(ctx, "go", "build", "-o", h.plugin, "github.com/ambit-mesh/ambit/cni/cmd/ambit-cni").CombinedOutput(); err != nil {
		return h, fmt.Errorf("building the plugin: %w: %s", err, out)
	}
	conf := []byte(`{"cniVersion":"1.0.0","name":"net","plugins":[{"type":"ptp"}]}`)
	err = errors.Join(os.Mkdir(h.path("bin"), 0o755), os.Mkdir(h.path("conf"), 0o755), h.process(1, "0::/init", h.ns),
		os.WriteFile(h.path("conf", "10-net.conflist"), conf, 0o644), os.WriteFile(h.path("state.yaml"), []byte("workloads: []\n"), 0o644))
	if err != nil {
		return h, err
	}
	return h, h.run(ctx)
}

func (h *host) path(parts ...string) string {
	return filepath.Join(append([]string{h.dir}, parts...)...)
}

// run starts agent and ztunnel and waits until they know each other.
func (h *host) run(ctx context.Context) error {
	ctx, h.stop = context.WithCancel(ctx)
	ports, err := freePorts(5)
	if err != nil {
		return err
	}
	ca, err := certstest.Make()
	if err != nil {
		return err
	}
	quiet := slog.New(slog.DiscardHandler)
	at := func(port uint16) string { return fmt.Sprintf("127.0.0.1:%d", port) }
	begin := func(f func() error) {
		h.running++
		go func() { h.done <- f() }()
	}
	begin(func() error {
		return cni.Run(ctx, cni.Config{
			Kube: h.kube, NodeName: "node", RunDir: h.path("run"), ZtunnelSocket: h.path("z.sock"), PluginSource: h.plugin,
			BinDir: h.path("bin"), ConfDir: h.path("conf"), Proc: h.path("proc"), NodeNetNS: spacePath(h.ns),
			HealthAddr: at(ports[0]), MetricsAddr: at(ports[1]), Grace: time.Millisecond, Log: quiet,
		})
	})
	begin(func() error {
		return ztunnel.Run(ctx, ztunnel.Config{
			LocalFile: h.path("state.yaml"), Authority: ca, AgentSocket: h.path("z.sock"), DrainDeadline: time.Second,
			AdminPort: ports[2], MetricsPort: ports[3], ReadyPort: ports[4], Logger: quiet,
		})
	})
	return until(ctx, func() bool { return get(ctx, at(ports[0])+"/readyz") && get(ctx, at(ports[4])+"/healthz/ready") })
}

// pod makes one; a running one has a process that leads to it.
func (h *host) pod(ctx context.Context, namespace string, running bool) (*benchPod, error) {
	n := len(h.pods)
	p := &benchPod{
		name: fmt.Sprintf("p%d", n), namespace: namespace, uid: fmt.Sprintf("00000000-0000-0000-0000-%012d", n),
		ip: netip.AddrFrom4([4]byte{10, 250, byte(n / 250), byte(1 + n%250)}),
	}
	var err error
	if p.ns, err = newNetNS(); err != nil {
		return nil, err
	}
	h.pods = append(h.pods, p)
	if err := p.ns.Do(func() error { return errors.Join(ip("link set lo up"), ip("addr add "+p.ip.String()+"/32 dev lo")) }); err != nil {
		return nil, err
	}
	object := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: p.name, Namespace: namespace, UID: types.UID(p.uid)},
		Spec:       corev1.PodSpec{NodeName: "node"},
	}
	if running {
		object.Status = corev1.PodStatus{Phase: corev1.PodRunning, PodIPs: []corev1.PodIP{{IP: p.ip.String()}}}
		if err := h.process(1000+n, "0::/kubepods/pod"+p.uid+"/c", p.ns); err != nil {
			return nil, err
		}
	}
	_, err = h.kube.CoreV1().Pods(namespace).Create(ctx, object, metav1.CreateOptions{})
	return p, err
}

// process adds one to what the agent takes for /proc.
func (h *host) process(n int, cgroup string, ns *linux.NetNS) error {
	dir := h.path("proc", fmt.Sprint(n))
	return errors.Join(
		os.MkdirAll(filepath.Join(dir, "ns"), 0o755),
		os.WriteFile(filepath.Join(dir, "cgroup"), []byte(cgroup), 0o644),
		os.WriteFile(filepath.Join(dir, "stat"), fmt.Appendf(nil, "%d (x) S 1 7 7 0 -1 4194560 1 0 0 0 0 0 0 0 20 0 1 0 100 1 1", n), 0o644),
		os.Symlink(spacePath(ns), filepath.Join(dir, "ns", "net")),
	)
}

func (h *host) label(ctx context.Context, namespace, mode string) error {
	patch := fmt.Appendf(nil, `{"metadata":{"labels":{%q:%q}}}`, enrol.ModeLabel, mode)
	_, err := h.kube.CoreV1().Namespaces().Patch(ctx, namespace, types.MergePatchType, patch, metav1.PatchOptions{})
	return err
}

func (h *host) annotation(ctx context.Context, p *benchPod) string {
	pod, err := h.kube.CoreV1().Pods(p.namespace).Get(ctx, p.name, metav1.GetOptions{})
	if err != nil {
		return ""
	}
	return pod.Annotations[enrol.RedirectionAnnotation]
}

// close ends everything; what was captured ends with its namespace.
func (h *host) close() {
	h.stop()
	for range h.running {
		<-h.done
	}
	for _, p := range h.pods {
		p.ns.Close()
	}
	if h.ns != nil {
		h.ns.Close()
	}
	os.RemoveAll(h.dir)
}

// until asks again and again, for a minute.
func until(ctx context.Context, ok func() bool) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	return nil
}

// get reports whether a page says that all is well.
func get(ctx context.Context, page string) bool {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+page, nil)
	if err != nil {
		return false
	}
	answer, err := http.DefaultClient.Do(r)
	if err != nil {
		return false
	}
	answer.Body.Close()
	return answer.StatusCode == http.StatusOK
}
