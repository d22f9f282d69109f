// Command echo is the test program of pods: a server and its clients. Every
// client prints one JSON object and ends with code 1 if anything failed.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/ambit-mesh/ambit/e2e/echo"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	cmd := &cobra.Command{Use: "echo", Short: "The test program of pods", SilenceUsage: true, SilenceErrors: true}
	cmd.AddCommand(serve(), get(), load(), tcp(), udp(), hold(), bulk(), halfClose(), lookup())
	if err := cmd.ExecuteContext(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "echo:", err)
		os.Exit(1)
	}
}

// errFailed ends a client whose summary says what failed.
var errFailed = errors.New("not everything succeeded")

// report prints a summary. Failures are an error unless they were expected.
func report(s *echo.Summary, expect string) error {
	if err := json.NewEncoder(os.Stdout).Encode(s); err != nil {
		return err
	}
	switch expect {
	case "ok":
		if s.Failed > 0 || s.OK == 0 {
			return errFailed
		}
	case "fail":
		if s.OK > 0 {
			return errors.New("something succeeded")
		}
	case "any":
	default:
		return fmt.Errorf("--expect %q: want ok, fail or any", expect)
	}
	return nil
}

func serve() *cobra.Command {
	var cfg echo.Config
	cmd := &cobra.Command{
		Use: "serve", Short: "Serve until asked to stop", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return echo.Serve(cmd.Context(), cfg, nil) },
	}
	f := cmd.Flags()
	f.IntSliceVar(&cfg.HTTP, "http", []int{8080}, "ports of HTTP/1.1 and HTTP/2 without TLS")
	f.IntSliceVar(&cfg.TCP, "tcp", []int{9000}, "ports that send back what they receive")
	f.IntVar(&cfg.UDP, "udp", 9000, "port that sends datagrams back (0: none)")
	f.IntVar(&cfg.First, "first", 9001, "port where the server speaks first (0: none)")
	f.IntVar(&cfg.Bulk, "bulk", 9002, "port of transfers with checksums (0: none)")
	f.IntVar(&cfg.GRPC, "grpc", 9003, "port of the gRPC health service (0: none)")
	f.StringArrayVar(&cfg.Upstreams, "upstream", nil, "http://... or tcp://HOST:PORT that a request for /call calls (repeatable)")
	f.StringVar(&cfg.Version, "version", "", "told in every answer")
	f.StringVar(&cfg.Marker, "marker", "ambit-marker", "sent in every call to an upstream")
	return cmd
}

// planFlags are the flags of clients that try more than once.
func planFlags(cmd *cobra.Command, p *echo.Plan, expect *string) {
	f := cmd.Flags()
	f.IntVar(&p.Count, "count", 0, "attempts (default 1, or until --duration ends)")
	f.Float64Var(&p.Rate, "rate", 0, "attempts per second (0: one after the other)")
	f.DurationVar(&p.Duration, "duration", 0, "end after this time")
	f.DurationVar(&p.Timeout, "timeout", 5*time.Second, "for one attempt")
	expectFlag(cmd, expect)
}

func expectFlag(cmd *cobra.Command, expect *string) {
	cmd.Flags().StringVar(expect, "expect", "ok", "exit code 0 if all attempts are: ok, fail, any")
}

// httpFlags are the flags of clients that make requests.
func httpFlags(cmd *cobra.Command, o *echo.HTTPOptions, headers *[]string) {
	f := cmd.Flags()
	f.BoolVar(&o.KeepAlive, "keepalive", false, "reuse connections (default: one per request)")
	f.BoolVar(&o.HTTP2, "http2", false, "HTTP/2 without TLS")
	f.StringVar(&o.Method, "method", "", "GET by default, POST with a body")
	f.StringVar(&o.Body, "body", "", "body of the request")
	f.IntVar(&o.Status, "status", http.StatusOK, "status that counts as success")
	f.StringArrayVarP(headers, "header", "H", nil, "NAME: VALUE (repeatable)")
}

func get() *cobra.Command {
	var p echo.Plan
	var o echo.HTTPOptions
	var headers []string
	var expect string
	cmd := &cobra.Command{
		Use: "get URL...", Short: "Make HTTP requests", Args: cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error { return request(cmd, args, p, o, headers, expect) },
	}
	planFlags(cmd, &p, &expect)
	httpFlags(cmd, &o, &headers)
	return cmd
}

// load is get with other defaults: it runs until it is stopped.
func load() *cobra.Command {
	var p echo.Plan
	var o echo.HTTPOptions
	var headers []string
	var expect string
	cmd := &cobra.Command{
		Use: "load URL", Short: "Make HTTP requests at a constant rate until stopped, then sum up", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error { return request(cmd, args, p, o, headers, expect) },
	}
	f := cmd.Flags()
	f.Float64Var(&p.Rate, "rate", 100, "requests per second")
	f.DurationVar(&p.Duration, "duration", 365*24*time.Hour, "end after this time, or at SIGTERM")
	f.DurationVar(&p.Timeout, "timeout", 5*time.Second, "for one request")
	f.IntVar(&p.InFlight, "in-flight", 1000, "open requests at one time; one that finds no room counts as failed")
	expectFlag(cmd, &expect)
	httpFlags(cmd, &o, &headers)
	return cmd
}

func request(cmd *cobra.Command, urls []string, p echo.Plan, o echo.HTTPOptions, headers []string, expect string) error {
	o.Header = http.Header{}
	for _, h := range headers {
		name, value, ok := strings.Cut(h, ":")
		if !ok {
			return fmt.Errorf("header %q: want NAME: VALUE", h)
		}
		o.Header.Add(strings.TrimSpace(name), strings.TrimSpace(value))
	}
	var all error
	for _, u := range urls {
		s, err := echo.Get(cmd.Context(), u, p, o)
		if err != nil {
			return err
		}
		all = errors.Join(all, report(s, expect))
	}
	return all
}

func tcp() *cobra.Command {
	var p echo.Plan
	var expect, data string
	var first bool
	cmd := &cobra.Command{
		Use: "tcp ADDRESS", Short: "Send bytes to a --tcp port and expect them back", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return report(echo.TCP(cmd.Context(), args[0], p, data, first), expect)
		},
	}
	planFlags(cmd, &p, &expect)
	cmd.Flags().StringVar(&data, "data", "hello\n", "what is sent")
	cmd.Flags().BoolVar(&first, "first", false, "the port is a --first one: wait for its banner")
	return cmd
}

func udp() *cobra.Command {
	var p echo.Plan
	var expect, data string
	cmd := &cobra.Command{
		Use: "udp ADDRESS", Short: "Send a datagram to a --udp port and expect it back", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return report(echo.UDP(cmd.Context(), args[0], p, data), expect)
		},
	}
	planFlags(cmd, &p, &expect)
	cmd.Flags().StringVar(&data, "data", "hello\n", "what is sent")
	return cmd
}

func hold() *cobra.Command {
	var duration, every, timeout time.Duration
	var connections int
	var expect string
	cmd := &cobra.Command{
		Use: "hold ADDRESS", Short: "Keep connections to a --tcp port and ping on it until stopped", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			ctx, cancel := context.WithTimeout(cmd.Context(), duration)
			defer cancel()
			if connections > 1 {
				return report(echo.HoldMany(ctx, connections, args[0], every, timeout), expect)
			}
			return report(echo.Hold(ctx, args[0], every, timeout), expect)
		},
	}
	cmd.Flags().DurationVar(&duration, "duration", 365*24*time.Hour, "end after this time, or at SIGTERM")
	cmd.Flags().IntVar(&connections, "connections", 1, "how many")
	cmd.Flags().DurationVar(&every, "every", 100*time.Millisecond, "time between pings")
	cmd.Flags().DurationVar(&timeout, "timeout", 10*time.Second, "for one ping")
	expectFlag(cmd, &expect)
	return cmd
}

func bulk() *cobra.Command {
	var bytes int64
	var direction, expect string
	var timeout time.Duration
	cmd := &cobra.Command{
		Use: "bulk ADDRESS", Short: "Transfer bytes to or from a --bulk port and compare checksums", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			switch direction {
			case "up":
				return report(echo.Up(cmd.Context(), args[0], bytes, timeout), expect)
			case "down":
				return report(echo.Down(cmd.Context(), args[0], bytes, timeout), expect)
			}
			return fmt.Errorf("--direction %q: want up or down", direction)
		},
	}
	cmd.Flags().Int64Var(&bytes, "bytes", 1<<30, "how many")
	cmd.Flags().StringVar(&direction, "direction", "up", "up (to the server) or down")
	cmd.Flags().DurationVar(&timeout, "timeout", 10*time.Minute, "for the whole transfer")
	expectFlag(cmd, &expect)
	return cmd
}

func halfClose() *cobra.Command {
	var timeout time.Duration
	var expect string
	cmd := &cobra.Command{
		Use: "halfclose ADDRESS", Short: "Try half-closes by client and by server on a --bulk port", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return report(echo.HalfClose(cmd.Context(), args[0], timeout), expect)
		},
	}
	cmd.Flags().DurationVar(&timeout, "timeout", 10*time.Second, "for each of the two")
	expectFlag(cmd, &expect)
	return cmd
}

func lookup() *cobra.Command {
	return &cobra.Command{
		Use: "lookup NAME", Short: "Resolve a name and print its addresses as JSON", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			found, err := net.DefaultResolver.LookupHost(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			return json.NewEncoder(os.Stdout).Encode(found)
		},
	}
}
