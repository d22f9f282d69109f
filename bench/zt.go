package bench

import (
	"context"
	"log/slog"
	"net"
	"os"
	"strconv"
	"time"

	"github.com/ambit-mesh/ambit/internal/certs/certstest"
	"github.com/ambit-mesh/ambit/internal/zds"
	"github.com/ambit-mesh/ambit/ztunnel"
)

// runZtunnel is the real ztunnel for the one pod of its namespace: ztunnel POD
// STATEFILE CAFILE.
func runZtunnel(ctx context.Context, args []string, ready func()) error {
	ca, err := certstest.Load(args[2])
	if err != nil {
		return err
	}
	pod := args[0]
	cfg := ztunnel.Config{
		LocalFile: args[1], Authority: ca, DrainDeadline: time.Second,
		Only:   &zds.Pod{UID: "bench//Pod/bench/" + pod, Namespace: "bench", Name: pod, ServiceAccount: pod},
		Logger: slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn})),
	}
	done := make(chan error, 1)
	go func() { done <- ztunnel.Run(ctx, cfg) }()
	for {
		select {
		case err := <-done:
			return err
		case <-time.After(10 * time.Millisecond):
		}
		if listening(15001) && listening(15008) {
			ready()
			return <-done
		}
	}
}

func listening(port int) bool {
	c, err := net.Dial("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
	if err != nil {
		return false
	}
	c.Close()
	return true
}
