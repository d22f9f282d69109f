package suite

import (
	"context"
	"fmt"
	"net/netip"
	"regexp"
	"strconv"
	"sync/atomic"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// churn is workloads that change all the time. They are pods that no scheduler
// places, whose status says that they run: the mesh tells of them as of others.
type churn struct {
	sc      *Scene
	names   []string
	made    atomic.Int64 // changes
	visited int
}

// hours is how long the changes took, had there been one in each second.
func (c *churn) hours() float64 { return float64(c.made.Load()) / 3600 }

func (c *churn) begin(ctx context.Context, n int) error {
	c.names = make([]string, n)
	for i := range n {
		if err := c.replace(ctx, i, 0); err != nil {
			return err
		}
	}
	return nil
}

// replace puts another pod, of another name, address and account, in the place
// of one.
func (c *churn) replace(ctx context.Context, i, number int) error {
	pods, none := c.sc.Reach.Client.CoreV1().Pods(c.sc.NS), int64(0)
	if old := c.names[i]; old != "" {
		if err := pods.Delete(ctx, old, metav1.DeleteOptions{GracePeriodSeconds: &none}); err != nil {
			return err
		}
	}
	c.names[i] = fmt.Sprintf("fleeting-%d-%d", i, number)
	address := netip.AddrFrom4([4]byte{198, 18, byte(number), byte(i)}).String() // of no network (RFC 2544)
	p, err := pods.Create(ctx, &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{
			Name: c.names[i], Labels: map[string]string{"app": "fleeting", "version": fmt.Sprint("v", number)},
			Annotations: map[string]string{"ambient.istio.io/redirection": "enabled"},
		},
		Spec: corev1.PodSpec{SchedulerName: "nobody", Containers: []corev1.Container{{Name: "c", Image: "none"}}},
	}, metav1.CreateOptions{})
	if err != nil {
		return err
	}
	p.Status = corev1.PodStatus{
		Phase: corev1.PodRunning, PodIP: address, PodIPs: []corev1.PodIP{{IP: address}},
		Conditions: []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue}},
	}
	_, err = pods.UpdateStatus(ctx, p, metav1.UpdateOptions{})
	return err
}

// ready changes the readiness of a pod.
func (c *churn) ready(ctx context.Context, i int, ready corev1.ConditionStatus) error {
	patch := fmt.Appendf(nil, `{"status":{"conditions":[{"type":"Ready","status":%q}]}}`, ready)
	_, err := c.sc.Reach.Client.CoreV1().Pods(c.sc.NS).Patch(ctx, c.names[i], types.StrategicMergePatchType, patch, metav1.PatchOptions{}, "status")
	return err
}

// run makes a change at a time, until stop ends: most become ready or not, every
// third is replaced.
func (c *churn) run(ctx, stop context.Context, every time.Duration) error {
	tick := time.NewTicker(every)
	defer tick.Stop()
	for number := 1; ; number++ {
		select {
		case <-tick.C:
		case <-stop.Done():
			return ctx.Err()
		}
		var err error
		switch i := number % len(c.names); number % 3 {
		case 0:
			err = c.replace(ctx, i, number)
		case 1:
			err = c.ready(ctx, i, corev1.ConditionFalse)
		default:
			err = c.ready(ctx, i, corev1.ConditionTrue)
		}
		if err != nil {
			return fmt.Errorf("change %d: %w", number, err)
		}
		c.made.Add(1)
	}
}

// betweenVisits is the pause between two real pods.
const betweenVisits = 20 * time.Second

// visits lets real pods with accounts of their own come, be called and go.
func (c *churn) visits(ctx, stop context.Context) error {
	for {
		p := Pod{Name: fmt.Sprintf("visitor-%d", c.visited), Node: 1 + c.visited%2}
		if err := c.sc.Start(ctx, p); err != nil {
			return err
		}
		v4, v6, err := c.sc.IPs(ctx, p.Name)
		if err != nil {
			return err
		}
		if v4 == "" {
			v4 = v6
		}
		if err := Soon(ctx, func(ctx context.Context) error { return c.sc.Works(ctx, "client", "get", url(v4, httpPort)) }); err != nil {
			return err
		}
		if err := c.sc.Reach.Client.CoreV1().Pods(c.sc.NS).Delete(ctx, p.Name, metav1.DeleteOptions{}); err != nil {
			return err
		}
		c.visited++
		select {
		case <-time.After(betweenVisits):
		case <-stop.Done():
			return ctx.Err()
		}
	}
}

// heap is what a part of the mesh keeps in memory, over time.
type heap struct {
	sc             *Scene
	what           string // pod
	admin, metrics uint16
	limit          float64
	hours, bytes   []float64
}

var heapAlloc = regexp.MustCompile(`(?m)^# HeapAlloc = (\d+)$`)

// look collects garbage there, twice since pools keep what they have for once,
// and takes note of what is left. The metrics are asked for as well, as is
// always done somewhere: what is old goes then.
func (h *heap) look(ctx context.Context, hours float64) error {
	get := func(port uint16, path string) ([]byte, error) {
		return h.sc.Reach.Get(ctx, "istio-system", h.what, port, path)
	}
	if _, err := get(h.metrics, "/metrics"); err != nil {
		return err
	}
	if _, err := get(h.admin, "/debug/pprof/heap?gc=1"); err != nil {
		return err
	}
	text, err := get(h.admin, "/debug/pprof/heap?gc=1&debug=1")
	if err != nil {
		return err
	}
	m := heapAlloc.FindSubmatch(text)
	if m == nil {
		return fmt.Errorf("%s does not tell its heap", h.what)
	}
	n, err := strconv.ParseFloat(string(m[1]), 64)
	if err != nil {
		return err
	}
	h.hours, h.bytes = append(h.hours, hours), append(h.bytes, n)
	return nil
}
