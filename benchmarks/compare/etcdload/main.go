// etcdload drives etcd the way lattice bench drives Lattice, with etcd's own Go client.
//
//	etcdload -endpoints H:P,... -op put|get -callers N -seconds S ...   callers at work, latencies, the longest gap
//	etcdload -endpoints H:P,... -op load -keys N -batch B ...           a bulk load, in transactions of B puts
//	etcdload -endpoints H:P,... -op status                              who leads, in which term
//
// Each caller is a goroutine that does one operation at a time. All callers share -clients clients, that is so
// many connections to each endpoint. The result is one JSON document on standard output.
//
// What it counts is what lattice bench counts (lattice_cli/bench/): operations that end within the measurement,
// after a warm-up; the longest gap is the longest time without any answer, the end included.
package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"math/rand"
	"os"
	"sort"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	clientv3 "go.etcd.io/etcd/clientv3"
	"google.golang.org/grpc/grpclog"
)

var (
	endpoints = flag.String("endpoints", "", "client addresses, comma-separated")
	op        = flag.String("op", "put", "put, get, load or status")
	callers   = flag.Int("callers", 256, "concurrent callers")
	clients   = flag.Int("clients", 1, "clients that the callers share")
	seconds   = flag.Float64("seconds", 5, "how long to measure")
	warmUp    = flag.Float64("warm-up", 1, "seconds before that")
	valueSize = flag.Int("value-size", 256, "bytes")
	keys      = flag.Int("keys", 10000, "key space; with load, the keys to be put")
	batch     = flag.Int("batch", 100, "with load: puts in a transaction; etcd takes 128 by default")
	timeout   = flag.Duration("timeout", 5*time.Second, "of one operation")
)

func main() {
	flag.Parse()
	grpclog.SetLoggerV2(grpclog.NewLoggerV2(io.Discard, io.Discard, io.Discard))
	var result interface{}
	var err error
	switch *op {
	case "put", "get":
		result, err = measure()
	case "load":
		result, err = load()
	case "status":
		result, err = status()
	default:
		err = fmt.Errorf("-op %s: put, get, load or status", *op)
	}
	if err == nil {
		err = json.NewEncoder(os.Stdout).Encode(result)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "etcdload:", err)
		os.Exit(1)
	}
}

func connect(count int) ([]*clientv3.Client, error) {
	made := make([]*clientv3.Client, count)
	for i := range made {
		client, err := clientv3.New(clientv3.Config{
			Endpoints:   strings.Split(*endpoints, ","),
			DialTimeout: 10 * time.Second,
			// What lattice clients do as well: notice a peer that is gone.
			DialKeepAliveTime:    2 * time.Second,
			DialKeepAliveTimeout: 2 * time.Second,
		})
		if err != nil {
			return nil, err
		}
		made[i] = client
	}
	return made, nil
}

func randomValue(random *rand.Rand) string {
	value := make([]byte, *valueSize)
	random.Read(value)
	return string(value)
}

func key(number int) string {
	return fmt.Sprintf("bench/%08d", number)
}

// -- callers at work

type result struct {
	Ops          int            `json:"ops"`
	Seconds      float64        `json:"seconds"`
	OpsPerSecond float64        `json:"ops_per_second"`
	P50          float64        `json:"p50_ms"`
	P90          float64        `json:"p90_ms"`
	P99          float64        `json:"p99_ms"`
	Max          float64        `json:"max_ms"`
	Errors       int            `json:"errors"`
	Callers      int            `json:"callers"`
	LongestGap   float64        `json:"longest_gap_ms"`
	Kinds        map[string]int `json:"errors_by_kind"`
}

// gaps watches for the longest time without an answer.
type gaps struct {
	sync.Mutex
	last    time.Time
	longest time.Duration
}

func (g *gaps) answered(at time.Time) {
	g.Lock()
	if gap := at.Sub(g.last); gap > g.longest {
		g.longest = gap
	}
	if at.After(g.last) {
		g.last = at
	}
	g.Unlock()
}

func measure() (*result, error) {
	pool, err := connect(*clients)
	if err != nil {
		return nil, err
	}
	start := time.Now().Add(time.Duration(*warmUp * float64(time.Second)))
	end := start.Add(time.Duration(*seconds * float64(time.Second)))
	watch := gaps{last: start}
	latencies := make([][]time.Duration, *callers)
	var mutex sync.Mutex
	kinds := map[string]int{}
	var work sync.WaitGroup
	for number := 0; number < *callers; number++ {
		work.Add(1)
		go func(number int) {
			defer work.Done()
			client := pool[number%len(pool)]
			random := rand.New(rand.NewSource(time.Now().UnixNano() + int64(number)))
			values := make([]string, 16)
			for i := range values {
				values[i] = randomValue(random)
			}
			for {
				began := time.Now()
				if !began.Before(end) {
					return
				}
				// At the end as well: nobody waits longer than that for an answer that no longer counts.
				limit := began.Add(*timeout)
				if last := end.Add(time.Second); limit.After(last) {
					limit = last
				}
				ctx, cancel := context.WithDeadline(context.Background(), limit)
				var err error
				name := key(random.Intn(*keys))
				if *op == "put" {
					_, err = client.Put(ctx, name, values[random.Intn(len(values))])
				} else {
					_, err = client.Get(ctx, name)
				}
				cancel()
				ended := time.Now()
				if ended.Before(start) || ended.After(end) {
					continue
				}
				if err != nil {
					mutex.Lock()
					kinds[err.Error()]++
					mutex.Unlock()
					time.Sleep(5 * time.Millisecond)
					continue
				}
				latencies[number] = append(latencies[number], ended.Sub(began))
				watch.answered(ended)
			}
		}(number)
	}
	work.Wait()
	watch.answered(end)
	var all []time.Duration
	for _, some := range latencies {
		all = append(all, some...)
	}
	sort.Slice(all, func(i, j int) bool { return all[i] < all[j] })
	found := &result{
		Ops: len(all), Seconds: *seconds, OpsPerSecond: float64(len(all)) / *seconds, Callers: *callers,
		LongestGap: milliseconds(watch.longest), Kinds: kinds,
	}
	for _, count := range kinds {
		found.Errors += count
	}
	if len(all) > 0 {
		found.P50, found.P90 = milliseconds(all[len(all)*50/100]), milliseconds(all[len(all)*90/100])
		found.P99, found.Max = milliseconds(all[len(all)*99/100]), milliseconds(all[len(all)-1])
	}
	return found, nil
}

func milliseconds(d time.Duration) float64 {
	return float64(d.Microseconds()) / 1000
}

// -- bulk load

type loaded struct {
	Keys          int     `json:"keys"`
	Seconds       float64 `json:"seconds"`
	KeysPerSecond float64 `json:"keys_per_second"`
	Retries       int64   `json:"retries"`
}

func load() (*loaded, error) {
	pool, err := connect(*clients)
	if err != nil {
		return nil, err
	}
	began := time.Now()
	next := int64(0)
	var retries int64
	failures := make(chan error, *callers)
	var work sync.WaitGroup
	for number := 0; number < *callers; number++ {
		work.Add(1)
		go func(number int) {
			defer work.Done()
			client := pool[number%len(pool)]
			random := rand.New(rand.NewSource(int64(number)))
			value := randomValue(random)
			for {
				first := int(atomic.AddInt64(&next, int64(*batch))) - *batch
				if first >= *keys {
					return
				}
				last := first + *batch
				if last > *keys {
					last = *keys
				}
				puts := make([]clientv3.Op, 0, last-first)
				for i := first; i < last; i++ {
					// No two values are the same.
					puts = append(puts, clientv3.OpPut(key(i), fmt.Sprintf("%08d", i)+value[min(8, len(value)):]))
				}
				for try := 0; ; try++ {
					ctx, cancel := context.WithTimeout(context.Background(), *timeout)
					var err error
					if len(puts) == 1 {
						_, err = client.Do(ctx, puts[0])
					} else {
						_, err = client.Txn(ctx).Then(puts...).Commit()
					}
					cancel()
					if err == nil {
						break
					}
					atomic.AddInt64(&retries, 1)
					if try >= 20 {
						failures <- err
						return
					}
					time.Sleep(20 * time.Millisecond)
				}
			}
		}(number)
	}
	work.Wait()
	select {
	case err := <-failures:
		return nil, err
	default:
	}
	took := time.Since(began).Seconds()
	return &loaded{Keys: *keys, Seconds: took, KeysPerSecond: float64(*keys) / took, Retries: retries}, nil
}

func min(a, b int) int {
	if a < b {
		return a
	}
	return b
}

// -- status

type member struct {
	Endpoint string `json:"endpoint"`
	ID       string `json:"id"`
	Leader   string `json:"leader"`
	Term     uint64 `json:"term"`
	Version  string `json:"version"`
	DbSize   int64  `json:"db_size"`
	Error    string `json:"error,omitempty"`
}

func status() ([]member, error) {
	pool, err := connect(1)
	if err != nil {
		return nil, err
	}
	var found []member
	for _, endpoint := range strings.Split(*endpoints, ",") {
		ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
		answer, err := pool[0].Status(ctx, endpoint)
		cancel()
		if err != nil {
			found = append(found, member{Endpoint: endpoint, Error: err.Error()})
			continue
		}
		found = append(found, member{
			Endpoint: endpoint, ID: fmt.Sprintf("%x", answer.Header.MemberId), Leader: fmt.Sprintf("%x", answer.Leader),
			Term: answer.RaftTerm, Version: answer.Version, DbSize: answer.DbSize,
		})
	}
	return found, nil
}
