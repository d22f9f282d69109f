package cni_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/containernetworking/cni/pkg/skel"
	"github.com/containernetworking/cni/pkg/version"
	"github.com/google/nftables"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/client-go/kubernetes/fake"
	ktesting "k8s.io/client-go/testing"

	"github.com/ambit-mesh/ambit/cni"
	"github.com/ambit-mesh/ambit/cni/enrol"
	"github.com/ambit-mesh/ambit/cni/netnstest"
	"github.com/ambit-mesh/ambit/cni/plugin"
	"github.com/ambit-mesh/ambit/cni/rules"
	"github.com/ambit-mesh/ambit/internal/health"
	"github.com/ambit-mesh/ambit/internal/linux"
)

// TestMain lets the test binary be the plugin, as the runtime runs it.
func TestMain(m *testing.M) {
	if os.Getenv("CNI_COMMAND") != "" {
		skel.PluginMainFuncs(plugin.Funcs(), version.All, "test")
		return
	}
	os.Exit(m.Run())
}

const primary = `{"cniVersion":"1.0.0","name":"net","plugins":[{"type":"ptp"}]}`

// world is a node with its directories, a cluster's API, and pods to be.
type world struct {
	t    *testing.T
	kube *fake.Clientset
	node *linux.NetNS
	proc netnstest.Proc
	peer netnstest.Pod // runs a program on 8080, outside the mesh
	pods int
	cfg  cni.Config
}

func newWorld(t *testing.T) *world {
	t.Helper()
	node := netnstest.Node(t)
	dir := t.TempDir()
	w := &world{t: t, node: node, proc: netnstest.NewProc(t, node), kube: fake.NewClientset(
		&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "shop", Labels: map[string]string{enrol.ModeLabel: "ambient"}}},
		&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "plain"}},
	)}
	w.cfg = cni.Config{
		Kube: w.kube, NodeName: "node-1",
		RunDir: filepath.Join(dir, "run"), ZtunnelSocket: filepath.Join(dir, "zt", "z.sock"),
		PluginSource: filepath.Join(dir, "plugin"), BinDir: filepath.Join(dir, "bin"), ConfDir: filepath.Join(dir, "net.d"),
		NodeNetNS: netnstest.Path(node), Proc: string(w.proc),
		HealthAddr: "127.0.0.1:0", MetricsAddr: "127.0.0.1:0",
		LookEvery: 50 * time.Millisecond, Grace: 50 * time.Millisecond,
		Log: slog.New(slog.NewTextHandler(t.Output(), nil)),
	}
	for _, d := range []string{w.cfg.BinDir, w.cfg.ConfDir} {
		if err := os.Mkdir(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	write(t, w.cfg.PluginSource, "plugin")
	write(t, filepath.Join(w.cfg.ConfDir, "10-net.conflist"), primary)
	w.peer = w.network()
	netnstest.Serve(t, w.peer.NS, 8080, "peer", linux.ListenOptions{})
	return w
}

func write(t *testing.T, path, s string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(s), 0o644); err != nil {
		t.Fatal(err)
	}
}

// network makes a pod's network with a program on 8080.
func (w *world) network() netnstest.Pod {
	w.t.Helper()
	w.pods++
	return netnstest.NewPod(w.t, w.node, w.pods)
}

// agent runs an agent until the test ends or stop is called.
func (w *world) agent() (stop func()) {
	w.t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- cni.Run(ctx, w.cfg) }()
	stopped := false
	stop = func() {
		if stopped {
			return
		}
		stopped = true
		cancel()
		if err := <-done; err != nil {
			w.t.Error(err)
		}
	}
	w.t.Cleanup(stop)
	w.eventually("the agent installs the plugin and lets ztunnels connect", func() bool {
		_, err := os.Stat(w.own())
		_, other := os.Stat(w.cfg.ZtunnelSocket)
		return errors.Join(err, other) == nil
	})
	return stop
}

func (w *world) own() string { return filepath.Join(w.cfg.ConfDir, "00-ambit-cni.conflist") }

func (w *world) eventually(what string, ok func() bool) {
	w.t.Helper()
	for end := time.Now().Add(netnstest.Patience); !ok(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(end) {
			w.t.Fatalf("not within %v: %s", netnstest.Patience, what)
		}
	}
}

func uidOf(n int) string { return fmt.Sprintf("00000000-0000-0000-0000-%012d", n) }

// pod makes pod number n in the cluster; without a network it has not started.
func (w *world) pod(n int, namespace string, net *netnstest.Pod) *corev1.Pod {
	w.t.Helper()
	pod := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprintf("p%d", n), Namespace: namespace, UID: types.UID(uidOf(n))},
		Spec: corev1.PodSpec{NodeName: "node-1", Containers: []corev1.Container{{
			Name: "c", ReadinessProbe: &corev1.Probe{ProbeHandler: corev1.ProbeHandler{TCPSocket: &corev1.TCPSocketAction{Port: intstr.FromInt32(8080)}}},
		}}},
		Status: corev1.PodStatus{Phase: corev1.PodPending},
	}
	if net != nil {
		w.run(pod, n, *net)
	}
	made, err := w.kube.CoreV1().Pods(namespace).Create(w.t.Context(), pod, metav1.CreateOptions{})
	if err != nil {
		w.t.Fatal(err)
	}
	return made
}

// run makes a pod a running one: processes, and what the kubelet says.
func (w *world) run(pod *corev1.Pod, n int, net netnstest.Pod) {
	w.t.Helper()
	netnstest.Serve(w.t, net.NS, 8080, "pod", linux.ListenOptions{})
	w.proc.Add(w.t, 1000+n, "0::/kubepods/pod"+uidOf(n)+"/c", net.NS, 100)
	pod.Status.Phase = corev1.PodRunning
	pod.Status.PodIPs = []corev1.PodIP{{IP: net.V4.String()}, {IP: net.V6.String()}}
}

func (w *world) annotation(pod *corev1.Pod) string {
	w.t.Helper()
	now, err := w.kube.CoreV1().Pods(pod.Namespace).Get(w.t.Context(), pod.Name, metav1.GetOptions{})
	if err != nil {
		w.t.Fatal(err)
	}
	return now.Annotations[enrol.RedirectionAnnotation]
}

// label sets a namespace's mode.
func (w *world) label(namespace, mode string) {
	w.t.Helper()
	patch := fmt.Appendf(nil, `{"metadata":{"labels":{%q:%q}}}`, enrol.ModeLabel, mode)
	_, err := w.kube.CoreV1().Namespaces().Patch(w.t.Context(), namespace, types.MergePatchType, patch, metav1.PatchOptions{})
	if err != nil {
		w.t.Fatal(err)
	}
}

// add runs the plugin as the runtime does, with the configuration installed.
func (w *world) add(command string, pod *corev1.Pod, net netnstest.Pod) error {
	w.t.Helper()
	b, err := os.ReadFile(w.own())
	if err != nil {
		return err
	}
	var conf struct{ Plugins []map[string]any }
	if err := json.Unmarshal(b, &conf); err != nil {
		return err
	}
	entry := conf.Plugins[len(conf.Plugins)-1]
	entry["name"], entry["cniVersion"] = "net", "1.0.0"
	entry["prevResult"] = map[string]any{"cniVersion": "1.0.0",
		"interfaces": []any{map[string]any{"name": "eth0", "sandbox": "x"}},
		"ips": []any{
			map[string]any{"interface": 0, "address": net.V4.String() + "/24"},
			map[string]any{"interface": 0, "address": net.V6.String() + "/64"},
		}}
	stdin, err := json.Marshal(entry)
	if err != nil {
		return err
	}
	cmd := exec.Command("/proc/self/exe")
	cmd.Stdin = bytes.NewReader(stdin)
	cmd.Env = []string{
		"CNI_COMMAND=" + command, "CNI_CONTAINERID=sandbox-" + pod.Name, "CNI_NETNS=" + netnstest.Path(net.NS), "CNI_IFNAME=eth0", "CNI_PATH=/none",
		fmt.Sprintf("CNI_ARGS=IgnoreUnknown=1;K8S_POD_NAMESPACE=%s;K8S_POD_NAME=%s;K8S_POD_UID=%s", pod.Namespace, pod.Name, pod.UID),
	}
	out, err := cmd.Output()
	if err != nil {
		return fmt.Errorf("%w: %s", err, out)
	}
	return nil
}

// way is how a connection from the pod to the peer went.
func (w *world) way(net netnstest.Pod) string {
	w.t.Helper()
	answer := netnstest.Ask(w.t, net.NS, netip.AddrPortFrom(w.peer.V4, 8080), "hi")
	before, _, _ := strings.Cut(answer, "peer ")
	return strings.TrimSpace(before)
}

func (w *world) present(net netnstest.Pod) bool {
	w.t.Helper()
	present, err := rules.Present(net.NS)
	if err != nil {
		w.t.Fatal(err)
	}
	return present
}

func TestAPodStartsCapturedOrWaits(t *testing.T) {
	w := newWorld(t)
	stop := w.agent()
	net := w.network()
	pod := w.pod(1, "shop", nil)

	started := make(chan error, 1)
	go func() { started <- w.add("ADD", pod, net) }()
	w.eventually("rules before ztunnel", func() bool { return w.present(net) })
	select {
	case err := <-started:
		t.Fatalf("the pod started without ztunnel: %v", err)
	default:
	}
	z := netnstest.NewZtunnel(t, w.cfg.ZtunnelSocket, nil)
	if err := <-started; err != nil {
		t.Fatal(err)
	}
	if way := w.way(net); way != "by 15001" {
		t.Errorf("its first connection went %q, want by ztunnel", way)
	}
	if told, _ := z.Pod(uidOf(1)); told.Name != "p1" || told.Namespace != "shop" || told.ServiceAccount != "default" {
		t.Errorf("ztunnel was told %+v", told)
	}
	w.eventually("the annotation", func() bool { return w.annotation(pod) == enrol.Enabled })

	// Its sandbox is made anew: the same pod in another namespace.
	second := w.network()
	if err := w.add("ADD", pod, second); err != nil {
		t.Fatal(err)
	}
	if _, ns := z.Pod(uidOf(1)); ns != second.NS.ID() {
		t.Error("ztunnel still serves the first sandbox")
	}
	if err := w.add("DEL", pod, second); err != nil {
		t.Fatal(err)
	}
	w.eventually("the sandbox is forgotten", func() bool { return len(z.Pods()) == 0 })

	stop()
	err := w.add("ADD", pod, net)
	if err == nil || !strings.Contains(err.Error(), "ambit cni agent is not running on this node") {
		t.Errorf("without an agent: %v, want to wait and to say why", err)
	}
}

func TestWhoStartsOutsideTheMesh(t *testing.T) {
	w := newWorld(t)
	w.agent()
	net := w.network()
	if err := w.add("ADD", w.pod(1, "plain", nil), net); err != nil {
		t.Fatal(err)
	}
	if w.present(net) {
		t.Error("a pod outside the mesh got rules")
	}
	other := w.pod(2, "shop", nil)
	other.UID = "another"
	if err := w.add("ADD", other, net); err == nil || !strings.Contains(err.Error(), "replaced") {
		t.Errorf("a pod of another UID: %v", err)
	}
	if err := w.add("ADD", w.pod(3, "shop", nil), netnstest.Pod{NS: net.NS, V4: netip.MustParseAddr("10.88.0.99"), V6: net.V6.Next()}); err == nil || !strings.Contains(err.Error(), "none of the pod's addresses") {
		t.Errorf("a namespace with other addresses: %v", err)
	}
	w.kube.PrependReactor("get", "namespaces", func(ktesting.Action) (bool, runtime.Object, error) {
		return true, nil, errors.New("the server is on fire")
	})
	if err := w.add("ADD", w.pod(4, "plain", nil), net); err == nil || !strings.Contains(err.Error(), "on fire") {
		t.Errorf("an API that does not answer: %v, want to wait", err)
	}
}

func TestALabelEnrolsAndReleasesRunningPods(t *testing.T) {
	w := newWorld(t)
	w.agent()
	a, b := w.network(), w.network()
	pods := []*corev1.Pod{w.pod(1, "plain", &a), w.pod(2, "plain", &b)}
	w.label("plain", "ambient")
	w.eventually("pending without ztunnel", func() bool {
		return w.annotation(pods[0]) == enrol.Pending && w.annotation(pods[1]) == enrol.Pending
	})
	if w.present(a) {
		t.Error("a running pod is captured though ztunnel is absent")
	}
	z := netnstest.NewZtunnel(t, w.cfg.ZtunnelSocket, nil)
	w.eventually("enabled", func() bool {
		return w.annotation(pods[0]) == enrol.Enabled && w.annotation(pods[1]) == enrol.Enabled
	})
	if way := w.way(a); way != "by 15001" {
		t.Errorf("connection went %q, want by ztunnel", way)
	}

	if err := rules.Remove(a.NS); err != nil {
		t.Fatal(err)
	}
	w.eventually("removed rules are mended", func() bool { return w.present(a) })
	w.eventually("and an event says so", func() bool {
		events, err := w.kube.CoreV1().Events("plain").List(t.Context(), metav1.ListOptions{})
		return err == nil && slices.ContainsFunc(events.Items, func(e corev1.Event) bool {
			return e.Reason == "MeshRulesMended" && e.InvolvedObject.Name == "p1"
		})
	})

	w.label("plain", "none")
	w.eventually("released", func() bool {
		return w.annotation(pods[0]) == "" && w.annotation(pods[1]) == "" && !w.present(a) && !w.present(b) && len(z.Pods()) == 0
	})
	if way := w.way(a); way != "" {
		t.Errorf("connection went %q, want past ztunnel", way)
	}
}

func TestAPodThatEndsLeaves(t *testing.T) {
	w := newWorld(t)
	w.agent()
	z := netnstest.NewZtunnel(t, w.cfg.ZtunnelSocket, nil)
	a, b := w.network(), w.network()
	job, deleted := w.pod(1, "shop", &a), w.pod(2, "shop", &b)
	w.eventually("both are served", func() bool { return len(z.Pods()) == 2 && w.annotation(job) == enrol.Enabled })
	now, err := w.kube.CoreV1().Pods("shop").Get(t.Context(), job.Name, metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	now.Status.Phase = corev1.PodSucceeded
	if _, err := w.kube.CoreV1().Pods("shop").UpdateStatus(t.Context(), now, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	w.eventually("the job is let go of", func() bool { return slices.Equal(z.Pods(), []string{uidOf(2)}) && w.annotation(job) == "" })
	if err := w.kube.CoreV1().Pods("shop").Delete(t.Context(), deleted.Name, metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	w.eventually("the deleted pod is let go of", func() bool { return len(z.Pods()) == 0 })
}

func TestAnAgentTakesOverWhatRuns(t *testing.T) {
	w := newWorld(t)
	net, lost := w.network(), w.network()
	pod := w.pod(1, "shop", &net)
	stop := w.agent()
	z := netnstest.NewZtunnel(t, w.cfg.ZtunnelSocket, nil)
	w.eventually("enabled", func() bool { return w.annotation(pod) == enrol.Enabled })
	long, err := netnstest.Dial(t, net.NS, netip.AddrPortFrom(w.peer.V4, 8080))
	if err != nil {
		t.Fatal(err)
	}
	stop()
	if answer, err := long.Ask("hi"); err != nil || !strings.HasPrefix(answer, "by 15001") {
		t.Errorf("without an agent the captured connection answers %q (%v)", answer, err)
	}
	if way := w.way(net); way != "by 15001" {
		t.Errorf("without an agent a new connection went %q", way)
	}

	// While no agent runs, rules are lost from one pod, another is said to be
	// captured but no process of it is found, and a third is unlabelled.
	if err := rules.Remove(net.NS); err != nil {
		t.Fatal(err)
	}
	hidden := w.pod(2, "shop", nil)
	hidden.Annotations = map[string]string{enrol.RedirectionAnnotation: enrol.Enabled}
	hidden.Status.PodIPs = []corev1.PodIP{{IP: "10.88.0.77"}}
	if _, err := w.kube.CoreV1().Pods("shop").Update(t.Context(), hidden, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	if err := rules.Apply(lost.NS, rules.Spec{}); err != nil {
		t.Fatal(err)
	}
	released := w.pod(3, "plain", &lost)
	z.Leave()
	w.agent()
	if !w.present(net) {
		t.Error("lost rules of a captured pod are not there when the agent is ready")
	}
	w.eventually("what belonged to the mesh once is clean", func() bool { return !w.present(lost) && w.annotation(released) == "" })
	z = netnstest.NewZtunnel(t, w.cfg.ZtunnelSocket, nil)
	w.eventually("ztunnel hears of it", func() bool { return slices.Equal(z.Pods(), []string{uidOf(1)}) })
	w.eventually("and keeps what it may know", func() bool { return slices.Equal(z.Kept(), []string{uidOf(2)}) })
}

func TestUninstallLeavesNothing(t *testing.T) {
	w := newWorld(t)
	net, orphan := w.network(), w.network()
	pod := w.pod(1, "shop", &net)
	stop := w.agent()
	z := netnstest.NewZtunnel(t, w.cfg.ZtunnelSocket, nil)
	w.eventually("enabled", func() bool { return w.annotation(pod) == enrol.Enabled })
	// A sandbox of a pod that nobody knows any more.
	if err := rules.Apply(orphan.NS, rules.Spec{}); err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(filepath.Join(filepath.Dir(w.cfg.ZtunnelSocket), "kept", "state"), 0o700); err != nil {
		t.Fatal(err)
	}
	w.proc.Add(t, 5000, "0::/kubepods/pod"+uidOf(99)+"/c", orphan.NS, 100)
	stop()
	z.Leave()
	done := make(chan error, 1)
	go func() { done <- cni.Uninstall(t.Context(), w.cfg) }()
	select {
	case err := <-done:
		if err != nil {
			t.Fatal(err)
		}
	case <-time.After(netnstest.Patience):
		t.Fatal("the uninstallation does not end")
	}
	if w.present(net) || w.present(orphan) || w.annotation(pod) != "" {
		t.Errorf("left: rules %v %v, annotation %q", w.present(net), w.present(orphan), w.annotation(pod))
	}
	var left []string
	for _, d := range []string{w.cfg.BinDir, w.cfg.ConfDir, w.cfg.RunDir, filepath.Dir(w.cfg.ZtunnelSocket)} {
		entries, err := os.ReadDir(d)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range entries {
			left = append(left, e.Name())
		}
	}
	if !slices.Equal(left, []string{"10-net.conflist"}) {
		t.Errorf("files left: %q", left)
	}
	netnstest.Do(t, w.node, func() error {
		tables, err := (&nftables.Conn{}).ListTables()
		for _, left := range tables {
			t.Errorf("table left on the node: %s", left.Name)
		}
		return err
	})
}

func TestHealthAndMetrics(t *testing.T) {
	w := newWorld(t)
	// Ports that are free now; whoever takes one meanwhile fails the test.
	w.cfg.HealthAddr, w.cfg.MetricsAddr = freePort(t), freePort(t)
	if err := os.Remove(filepath.Join(w.cfg.ConfDir, "10-net.conflist")); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- cni.Run(ctx, w.cfg) }()
	defer func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}()
	get := func(addr, path string) (int, string) {
		r, err := http.Get("http://" + addr + path)
		if err != nil {
			return 0, ""
		}
		defer r.Body.Close()
		b, err := io.ReadAll(r.Body)
		if err != nil {
			return 0, ""
		}
		return r.StatusCode, string(b)
	}
	w.eventually("alive", func() bool { status, _ := get(w.cfg.HealthAddr, "/healthz"); return status == http.StatusOK })
	w.eventually("not ready without a network configuration", func() bool {
		status, text := get(w.cfg.HealthAddr, "/readyz")
		return status == http.StatusServiceUnavailable && strings.Contains(text, "plugin in place")
	})
	told := func() (h health.Agent) {
		_, text := get(w.cfg.HealthAddr, health.Path)
		if err := json.Unmarshal([]byte(text), &h); err != nil {
			t.Errorf("it tells %q: %v", text, err)
		}
		return h
	}
	w.eventually("the plugin's absence is told", func() bool {
		h := told()
		return !h.Plugin.InPlace && h.Plugin.Error != "" && h.Node == w.cfg.NodeName && !h.Now.IsZero()
	})
	write(t, filepath.Join(w.cfg.ConfDir, "10-net.conflist"), primary)
	w.eventually("ready", func() bool { status, _ := get(w.cfg.HealthAddr, "/readyz"); return status == http.StatusOK })
	netnstest.NewZtunnel(t, w.cfg.ZtunnelSocket, nil)
	w.eventually("metrics", func() bool {
		_, text := get(w.cfg.MetricsAddr, "/metrics")
		return strings.Contains(text, "\nztunnel_connected 1\n") && strings.Contains(text, "\nistio_cni_install_ready 1\n") &&
			strings.Contains(text, `istio_cni_installs_total{result="SUCCESS"} 1`) && strings.Contains(text, `ambit_cni_pods{phase="captured"} 0`)
	})
	if h := told(); !h.Plugin.InPlace || h.Plugin.Error != "" || h.Ztunnels != 1 {
		t.Errorf("when all is well it tells %+v", h)
	}
}

func freePort(t *testing.T) string {
	t.Helper()
	l, err := linux.ListenTCP(t.Context(), nil, netip.MustParseAddrPort("127.0.0.1:0"), linux.ListenOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}
